"""The Optuna study of a sweep: opens its storage, asks for new trials and samples their points.

One process at a time asks and tells, with the sweep's lock held.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phalanx.common.redaction import redact
from phalanx.config.schema import Mode, SamplerName, SweepConfig
from phalanx.exit.codes import ConfigError

from ..common.sweep_folder import JOURNAL
from .pruners import pruner, pruner_config
from .space import Choice, Interval, SearchSpace
from .storage_retry import retry_calls
from .trial_storage import ERROR, MEMORY, Lock, TrialStorage, repair_journal

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_IDENTITY = "identity"  # attribute of the study
_ENQUEUED = "fixed_params"  # Optuna's own attribute of a trial: what of its point Study.enqueue_trial was given


class Search(TrialStorage):
    """The trials of one sweep, by their numbers from 0 on, and which points are tried."""

    def __init__(
        self, study: "Study", space: SearchSpace, config: SweepConfig, lock: Lock, journal: Path | None
    ) -> None:
        """`journal` is the file that the storage is, None where it is none."""
        super().__init__(study, lock, journal)
        self._space = space
        self._config = config
        self._distributions = {dimension.key: distribution(dimension) for dimension in space.dimensions}
        self._grid = list(space.grid()) if tries_all(config) else None

    @property
    def size(self) -> int:
        """How many points there are to try, those that somebody else enqueued in the study among them."""
        enqueued = sum(_ENQUEUED in trial.system_attrs for trial in self.trials())
        if self._grid is None:
            assert self._config.trials is not None
            return self._config.trials + enqueued
        return min(len(self._grid), self._config.trials or len(self._grid)) + enqueued

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
                    storage.set_trial_system_attr(found._trial_id, _ENQUEUED, self._matching_choices(wanted))
                self.study.sampler = self._sampler(found.number)
                trial = Trial(self.study, found._trial_id)
                for name, of in self._distributions.items():
                    trial._suggest(name, of)
            except ValueError as error:
                self.fail(found.number, f"what was enqueued is no point of the space: {error}", out_of_memory=False)

    def _sampler(self, number: int) -> "BaseSampler":
        """Of trial `number`: on a grid the next point, which counts no enqueued trial."""
        from .samplers import GridPoints, random_or_tpe

        if self._grid is None:
            return random_or_tpe(self._config, number, self._distributions, avoided=MEMORY)
        own = sum(_ENQUEUED not in trial.system_attrs for trial in self.trials()[:number])
        return GridPoints(self._grid[own % len(self._grid)], self._distributions)

    def _matching_choices(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A point that somebody enqueued, its choices spelt as the command line spells them. Raises ValueError."""
        for name in wanted.keys() - self._distributions.keys():
            raise ValueError(f"{name} is not swept, but {', '.join(self._distributions)}")
        return {name: _matching_choice(self._distributions[name], value) for name, value in wanted.items()}

    def words(self, number: int) -> list[str]:
        """What the trial's command line has beside the words that all share."""
        return self._space.chosen(self.trials()[number].params)

    def all_failed(self) -> bool:
        """Whether each point was tried and failed."""
        return len(self.failed()) >= self.size

    def reasons(self) -> "list[tuple[str, int]]":
        """The errors that trials failed with and how many each, the most frequent first."""
        told = [_without_place(self.attr(number, ERROR, "")) for number in self.failed()]
        return Counter(told).most_common()


def tries_all(config: SweepConfig) -> bool:
    """Whether the points are those of a grid."""
    return config.trials is None or config.sampler is SamplerName.grid


def open_search(
    folder: Path, space: SearchSpace, config: SweepConfig, identities: Sequence[Mapping[str, Any]], lock: Lock
) -> Search:
    """Create or resume the search in the folder `folder`, which all processes with the `lock` share.

    `identities` are what may not change on resume, first as this version spells it, then as earlier ones did. Raises
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
        repair_journal(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    if folder.name not in {summary.study_name for summary in optuna.get_all_study_summaries(storage)}:
        assert config.mode is not None
        optuna.create_study(storage=storage, study_name=folder.name, direction=direction(config.mode))
    return optuna.load_study(
        study_name=folder.name,
        storage=storage,
        pruner=pruner(pruner_config(config.pruner)),
        sampler=optuna.samplers.RandomSampler(),  # each trial gets its own
    )


def _matching_choice(of: "BaseDistribution", value: object) -> object:
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
