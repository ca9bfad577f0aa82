"""Trials in Optuna's storage: their attributes, their evaluations and how they end, each written with a lock held.

Whatever is decided stands in the storage before anything follows from it, so a sweep that was killed continues from there.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# Attributes of a trial.
ERROR, MEMORY = "error", "out_of_memory"
SEEDS = "by_seed"  # its values, one a seed
DIGEST, BATCH, EVERY, STEPS = "config_digest", "batch", "eval_every", "steps"
THREADS = "threads"  # of each rank, where no word says how many
PROMOTED = "promoted"  # how many rungs it was promoted from
RANK_S = "rank_s"  # seconds that it ran, times ranks
ENERGY_J = "energy_j"  # that its GPUs used
ENDED_BY = "ended_by"  # what ended its runs: steps, early_stop, time_limit

Lock = Callable[[], AbstractContextManager[bool]]  # holds the lock within; yields whether it was taken only now


class TrialStorage:
    """The trials of one study, by their numbers from 0 on."""

    def __init__(self, study: "Study", lock: Lock, journal: Path | None) -> None:
        """`journal` is the file that the storage is, None where it is none."""
        from optuna.trial import TrialState

        self.study = study
        self._lock = lock
        self._journal = journal
        self._states = TrialState
        self._is_locked = False
        self._read: list[FrozenTrial] | None = None  # since the lock is held, where nothing was written since
        self._ids: list[int] = []  # of the trials in the storage, which they keep

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the sweep's lock. Repairs what a process that died left half written in the journal."""
        with self._lock() as begins:
            if not begins:
                yield
                return
            if self._journal is not None:
                repair_journal(self._journal)
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

    def attr(self, number: int, name: str, without: Any) -> Any:
        """An attribute of a trial; `without` where it has none."""
        return self.trials()[number].user_attrs.get(name, without)

    def set_attr(self, number: int, name: str, value: Any) -> None:
        with self._writing():
            self.study._storage.set_trial_user_attr(self._id(number), name, value)

    def report(self, number: int, step: int, value: float) -> bool:
        """Record an evaluation of a running trial; returns whether Optuna's pruner would prune it."""
        from optuna.trial import Trial

        with self._writing():
            trial = Trial(self.study, self._id(number))
            trial.report(value, step)
            return trial.should_prune()

    def complete(self, number: int, by_seed: Sequence[float]) -> None:
        """Mark a trial complete, with its value for each seed; their mean ranks it."""
        with self._writing():
            self.set_attr(number, SEEDS, list(by_seed))
            self.study.tell(number, sum(by_seed) / len(by_seed))

    def prune(self, number: int) -> None:
        """Mark a trial pruned: it ended early, for good."""
        with self._writing():
            self.study.tell(number, state=self._states.PRUNED)

    def fail(self, number: int, error: str, out_of_memory: bool) -> None:
        """Mark a trial failed."""
        with self._writing():
            self.set_attr(number, MEMORY, out_of_memory)
            self.set_attr(number, ERROR, error)  # from now on it has failed
            self.study.tell(number, state=self._states.FAIL)

    def had_failed(self, trial: "FrozenTrial") -> bool:
        """Whether an unfinished trial has an error on record; marks it failed then."""
        if ERROR not in trial.user_attrs:
            return False
        with self._writing():
            self.study.tell(trial.number, state=self._states.FAIL)
        return True

    def share(self, first: "FrozenTrial", same: int) -> None:
        """Copy evaluations and end of the first trial to one that is the same run."""
        with self._writing():
            for step, value in first.intermediate_values.items():
                self.study._storage.set_trial_intermediate_value(self._id(same), step, value)
            for name in (STEPS, ENDED_BY):
                self.set_attr(same, name, first.user_attrs.get(name))
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


def repair_journal(journal: Path) -> None:
    """Truncate a half-written last line and remove the lock of a dead process. To be called with the sweep's lock held."""
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
