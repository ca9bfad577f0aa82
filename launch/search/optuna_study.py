"""Optuna does the searching: it is asked for points, and told what became of them.

One process at a time asks and tells. Whatever is decided stands in Optuna's storage before anything follows from it, so
a sweep that was killed goes on from there.
"""

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phalanx.common.redaction import redact
from phalanx.config.schema import Mode, PrunerConfig, PrunerName, SamplerName, SweepConfig
from phalanx.exit.codes import ConfigError

from .space import Choice, Interval, SearchSpace
from .storage_retry import retry_calls

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "journal.jsonl"
# Attributes of a trial.
ERROR, MEMORY = "error", "out_of_memory"
SEEDS = "by_seed"  # its values, one a seed
DIGEST, BATCH, EVERY, STEPS = "config_digest", "batch", "eval_every", "steps"
THREADS = "threads"  # of each rank, where no word says how many
PROMOTED = "promoted"  # how many rungs it was let go on from
RANK_S = "rank_s"  # seconds that it ran, times ranks
ENERGY_J = "energy_j"  # that its GPUs used
_IDENTITY = "identity"  # attribute of the study
_ENQUEUED = "fixed_params"  # Optuna's own attribute of a trial: what of its point Study.enqueue_trial was given

Lock = Callable[[], AbstractContextManager[bool]]  # nobody else decides within; yields whether it begins


class Search:
    """The trials of one sweep, by their numbers from 0 on. What is written is written in lock."""

    def __init__(
        self, study: "Study", space: SearchSpace, config: SweepConfig, lock: Lock, journal: Path | None
    ) -> None:
        """`journal` is the file that the storage is, None where it is none."""
        from optuna.trial import TrialState

        self.study = study
        self._space = space
        self._config = config
        self._lock = lock
        self._journal = journal
        self._states = TrialState
        self._distributions = {dimension.key: distribution(dimension) for dimension in space.dimensions}
        self._grid = list(space.grid()) if tries_all(config) else None
        self._is_locked = False
        self._read: list[FrozenTrial] | None = None  # in this lock, and nothing was written since
        self._ids: list[int] = []  # of the trials in the storage, which they keep

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nobody else decides within. What a process that died then left half written is gone."""
        with self._lock() as begins:
            if not begins:
                yield
                return
            if self._journal is not None:
                _repair(self._journal)
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked, self._read = False, None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock():
            try:
                yield
            finally:
                self._read = None

    @property
    def size(self) -> int:
        """How many points there are to try, those that somebody else enqueued in the study among them."""
        enqueued = sum(_ENQUEUED in trial.system_attrs for trial in self.trials())
        if self._grid is None:
            assert self._config.trials is not None
            return self._config.trials + enqueued
        return min(len(self._grid), self._config.trials or len(self._grid)) + enqueued

    def trials(self) -> "list[FrozenTrial]":
        """All that were asked for, in order; one without a whole point is not drawn yet. A database is far away, so it is
        asked once where nobody else may answer."""
        found = self._read if self._read is not None else self.study.get_trials(deepcopy=False)
        self._read = found if self._is_locked else None
        return found

    def _id(self, number: int) -> int:
        if number >= len(self._ids):
            self._ids = [trial._trial_id for trial in self.trials()]
        return self._ids[number]

    def ask(self) -> int | None:
        """One more point to try, on record from now on; None where there are enough."""
        with self.lock():
            number = len(self.trials())
            if number >= self.size:
                return None
            with self._writing():
                self.study._storage.create_new_trial(self.study._study_id)
            self._draw(self.trials()[number])
            return number

    def draw(self) -> None:
        """Draw what is not drawn yet: what somebody enqueued in the study, and what a process that was killed had asked
        for. Where what was enqueued is no point of the space, that trial fails."""
        with self.lock():
            for trial in self.trials():
                if not trial.state.is_finished() and not self.is_drawn(trial):
                    self._draw(trial)

    def is_drawn(self, trial: "FrozenTrial") -> bool:
        return trial.state is not self._states.WAITING and self._distributions.keys() <= trial.params.keys()

    def _draw(self, found: "FrozenTrial") -> None:
        from optuna.trial import Trial

        storage, wanted = self.study._storage, found.system_attrs.get(_ENQUEUED, {})
        with self._writing():
            if found.state is self._states.WAITING:
                storage.set_trial_state_values(found._trial_id, state=self._states.RUNNING)
            try:
                if wanted:
                    storage.set_trial_system_attr(found._trial_id, _ENQUEUED, self._spelt(wanted))
                self.study.sampler = self._sampler(found.number)
                trial = Trial(self.study, found._trial_id)
                for name, of in self._distributions.items():
                    trial._suggest(name, of)
            except ValueError as error:
                self.fail(found.number, f"what was enqueued is no point of the space: {error}", out_of_memory=False)

    def _spelt(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A point that somebody enqueued, its choices spelt as the command line spells them. Raises ValueError."""
        for name in wanted.keys() - self._distributions.keys():
            raise ValueError(f"{name} is not swept, but {', '.join(self._distributions)}")
        return {name: _spelt(self._distributions[name], value) for name, value in wanted.items()}

    def words(self, number: int) -> list[str]:
        """What the trial's command line has beside the words that all share."""
        return self._space.chosen(self.trials()[number].params)

    def report(self, number: int, step: int, value: float) -> bool:
        """An evaluation of a trial that goes on; returns whether Optuna's pruner would rather end it."""
        from optuna.trial import Trial

        with self._writing():
            trial = Trial(self.study, self._id(number))
            trial.report(value, step)
            return trial.should_prune()

    def complete(self, number: int, by_seed: Sequence[float]) -> None:
        """It was trained to its end, once a seed; the mean ranks it."""
        with self._writing():
            self.set_attr(number, SEEDS, list(by_seed))
            self.study.tell(number, sum(by_seed) / len(by_seed))

    def prune(self, number: int) -> None:
        """It ended early, for good."""
        with self._writing():
            self.study.tell(number, state=self._states.PRUNED)

    def fail(self, number: int, error: str, out_of_memory: bool) -> None:
        """It came to nothing."""
        with self._writing():
            self.set_attr(number, MEMORY, out_of_memory)
            self.set_attr(number, ERROR, error)  # from now on it has failed
            self.study.tell(number, state=self._states.FAIL)

    def had_failed(self, trial: "FrozenTrial") -> bool:
        """Whether it was noted of an open trial that it failed, which is told then."""
        if ERROR not in trial.user_attrs:
            return False
        with self._writing():
            self.study.tell(trial.number, state=self._states.FAIL)
        return True

    def share(self, first: "FrozenTrial", same: int) -> None:
        """What became of the first is what becomes of one that is the same run, and how it came there."""
        with self._writing():
            for step, value in first.intermediate_values.items():
                self.study._storage.set_trial_intermediate_value(self._id(same), step, value)
            self.set_attr(same, STEPS, first.user_attrs.get(STEPS))
        if first.state is self._states.COMPLETE:
            self.complete(same, first.user_attrs[SEEDS])
        elif first.state is self._states.FAIL:
            self.fail(same, f"it is the same run as trial {first.number}", out_of_memory=False)
        else:
            self.prune(same)

    def failed(self) -> list[int]:
        return [trial.number for trial in self.trials() if trial.state is self._states.FAIL]

    def completed(self) -> "list[FrozenTrial]":
        """Those trained to their end."""
        return [trial for trial in self.trials() if trial.state is self._states.COMPLETE]

    def all_failed(self) -> bool:
        """Whether each point was tried and failed."""
        return len(self.failed()) >= self.size

    def reasons(self) -> "list[tuple[str, int]]":
        """Why trials failed, the commonest first, and how many each."""
        told = [_without_place(self.attr(number, ERROR, "")) for number in self.failed()]
        return Counter(told).most_common()

    def attr(self, number: int, name: str, without: Any) -> Any:
        """An attribute of a trial; `without` where it has none."""
        return self.trials()[number].user_attrs.get(name, without)

    def set_attr(self, number: int, name: str, value: Any) -> None:
        with self._writing():
            self.study._storage.set_trial_user_attr(self._id(number), name, value)

    def _sampler(self, number: int) -> "BaseSampler":
        """Of trial `number`, seeded by the sweep's seed and that, so that it does not matter who asked when."""
        from optuna.samplers import RandomSampler, TPESampler

        from .samplers import GridPoints, GuardedSampler

        if self._grid is not None:
            own = sum(_ENQUEUED not in trial.system_attrs for trial in self.trials()[:number])
            return GridPoints(self._grid[own % len(self._grid)], self._distributions)
        seed = (self._config.seed * 1_000_003 + number) % 2**32
        if self._config.sampler is SamplerName.random:
            return GuardedSampler(RandomSampler(seed), self._distributions, MEMORY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that these options may change
            tpe = TPESampler(seed=seed, multivariate=True, constant_liar=True, warn_independent_sampling=False)
        return GuardedSampler(tpe, self._distributions, MEMORY)


def tries_all(config: SweepConfig) -> bool:
    """Whether the points are those of a grid."""
    return config.trials is None or config.sampler is SamplerName.grid


def open_search(
    folder: Path, space: SearchSpace, config: SweepConfig, identities: Sequence[Mapping[str, Any]], lock: Lock
) -> Search:
    """The search in the folder `folder`, begun anew or gone on with, by all processes that share the `lock`.

    `identities` are what may not change in between, first as it is told now, then as earlier versions told it. Raises
    ConfigError when the storage cannot be used, or holds another search.
    """
    import optuna
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    now, *former = json.loads(json.dumps(identities))
    journal = folder / JOURNAL if config.storage is None else None
    try:
        with lock():
            study = _study(folder, config, journal)
            before = study.user_attrs.get(_IDENTITY)
            if before is None:
                study.set_user_attr(_IDENTITY, now)
    except (OptunaError, SQLAlchemyError, OSError, ValueError, KeyError, ImportError) as error:
        where = f"sweep.storage={redact(config.storage)}" if config.storage else journal
        reason = redact(" ".join(str(error).split()))
        raise ConfigError(
            f"{where} cannot be used: {reason}. Type run.name=… for a sweep of its own, or mend it"
        ) from None
    if before is not None and before not in (now, *former):
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        raise ConfigError(
            f"{folder} holds another search, with another {' and another '.join(changed)}. Type run.name=… for a sweep of "
            "its own"
        )
    if config.storage is not None:
        retry_calls(study._storage, config.storage)
    return Search(study, space, config, lock, journal)


def _study(folder: Path, config: SweepConfig, journal: Path | None) -> "Study":
    import optuna
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    if journal is None:
        storage = get_storage(config.storage)
    else:
        _repair(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    if folder.name not in {summary.study_name for summary in optuna.get_all_study_summaries(storage)}:
        assert config.mode is not None
        optuna.create_study(storage=storage, study_name=folder.name, direction=direction(config.mode))
    return optuna.load_study(
        study_name=folder.name,
        storage=storage,
        pruner=_pruner(config.pruner),
        sampler=optuna.samplers.RandomSampler(),  # each trial gets its own
    )


def _repair(journal: Path) -> None:
    """What was half written was never decided, and what a dead process locked is free. Nobody writes meanwhile."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    with suppress(FileNotFoundError), journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) in (b"", b"\n"):
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.flush()
        os.fsync(file.fileno())


def _spelt(of: "BaseDistribution", value: object) -> object:
    """A value as a distribution has it; a choice may be given as the number that it spells."""
    choices = getattr(of, "choices", ())
    if isinstance(value, bool | int | float):
        for choice in choices:
            with suppress(ValueError):
                if float(choice) == value:
                    return choice
    return value


def _without_place(error: str) -> str:
    """The same for whichever rank told of it."""
    return re.sub(r"^rank \d+( on \S+)?:? ", "", error)


def direction(mode: Mode) -> Literal["minimize", "maximize"]:
    """Mode in Optuna's words."""
    return "minimize" if mode is Mode.min else "maximize"


def distribution(dimension: Choice | Interval) -> "BaseDistribution":
    """A dimension in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high = dimension.low, dimension.high
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def _pruner(config: PrunerConfig) -> "BasePruner":
    """Of those that end trials for good; what pauses trials is launch/search/asha.py."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    first = config.first_step or 1
    if config.name is PrunerName.median:
        return MedianPruner(n_startup_trials=config.after_trials, n_warmup_steps=first)
    if config.name is PrunerName.hyperband:
        return HyperbandPruner(min_resource=first, reduction_factor=config.eta)
    return NopPruner()
