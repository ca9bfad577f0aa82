"""Saver: begin a save after a step, and poll for its end, at once or some steps later."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from phalanx.exit.codes import NoRoom, PeerFailed
from phalanx.run_folder.checkpoints import Checkpoints

from .progress import Progress
from .snapshot import commit, take_snapshot, write
from .state import State


@dataclass(frozen=True)
class Saved:
    """The checkpoint of `step` is committed."""

    step: int


@dataclass(frozen=True)
class Failed:
    """The checkpoint of `step` failed with `error`, the same on all ranks."""

    step: int
    error: NoRoom | PeerFailed


class Saver(ABC):
    """Saves checkpoints, one at a time.

    All ranks call `begin`, `poll` and `wait` after the same step, and get the same answer; `abort` each calls by itself.
    Before the answer the checkpoint is not committed: a run that is killed continues from the one before.
    """

    @abstractmethod
    def begin(self, state: State, progress: Progress) -> None:
        """Begin to save what `state` and `progress` hold now; the next step may change both as soon as this returns.

        Called only after the answer for the save before. Raises ConfigError if the ranks' parameters differ, or if
        another start has taken the run over; disk errors come as Failed.
        """

    @abstractmethod
    def poll(self) -> Saved | Failed | None:
        """The answer for the save that was begun, once; None while it runs, or if none was begun. Does not block."""

    @abstractmethod
    def wait(self) -> Saved | Failed | None:
        """Block until the save that was begun has ended; its answer, once. None if none was begun."""

    @abstractmethod
    def abort(self) -> None:
        """The run fails elsewhere: after this returns, nothing more is written or committed.

        Each rank calls it by itself, before the lease is released, so there are no collectives in it.
        """


class SynchronousSaver(Saver):
    """Each save is done when `begin` returns."""

    def __init__(self, checkpoints: Checkpoints, digest: str) -> None:
        """`digest` is that of the config."""
        self._checkpoints = checkpoints
        self._digest = digest
        self._answer: Saved | Failed | None = None

    def begin(self, state: State, progress: Progress) -> None:
        assert self._answer is None, "the answer for the save before was not taken"
        try:
            save(state, progress, self._checkpoints, self._digest)
        except (NoRoom, PeerFailed) as error:
            self._answer = Failed(progress.step, error)
        else:
            self._answer = Saved(progress.step)

    def poll(self) -> Saved | Failed | None:
        answer, self._answer = self._answer, None
        return answer

    def wait(self) -> Saved | Failed | None:
        return self.poll()

    def abort(self) -> None:
        """Nothing is under way between two calls."""


def save(state: State, progress: Progress, checkpoints: Checkpoints, digest: str) -> None:
    """Write and commit the checkpoint of `progress.step`. All ranks call it; what fails on one is raised on all."""
    world, staging = state.world, checkpoints.staging(progress.step)
    taken = take_snapshot(state, progress, digest)  # all ranks take part
    try:
        # All ranks take part in both: a commit counts on the files of all.
        world.raise_on_all(checkpoints.saving(lambda: write(taken, staging)))
        world.raise_on_all(checkpoints.saving(lambda: commit(taken, checkpoints)))
    except Exception:
        if world.is_rank_zero:
            checkpoints.drop(progress.step)
        raise
