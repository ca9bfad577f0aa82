"""A second way to save: what is begun after one step is there after the next one, or turns out not to be."""

import os
from collections.abc import Sequence
from pathlib import Path

from phalanx.exit.codes import NoRoom
from phalanx.run_folder.checkpoints import Checkpoints
from phalanx.train.checkpoint.progress import Progress
from phalanx.train.checkpoint.saver import Failed, Saved, Saver
from phalanx.train.checkpoint.snapshot import Snapshot, commit, take_snapshot, write
from phalanx.train.checkpoint.state import State
from phalanx.train.engine import trainer
from phalanx.train.tasks.classification import Classification

LATE = "task._target_=tests.train.checkpoint.late_saver.SavedLate"


class LateSaver(Saver):
    """Writes in `begin` and commits at the second `poll`, which comes after the next step.

    Rank 0 notes in `notes` what stands in the folder when a save begins and just before it is done.
    """

    fails: Sequence[int] = ()
    notes = Path("notes")

    def __init__(self, checkpoints: Checkpoints, digest: str) -> None:
        self._checkpoints = checkpoints
        self._digest = digest
        self._state: State | None = None
        self._taken: Snapshot | None = None
        self._polled = False

    def begin(self, state: State, progress: Progress) -> None:
        assert self._taken is None
        self._note("begins", progress.step)
        self._state, self._polled = state, False
        self._taken = taken = take_snapshot(state, progress, self._digest)
        staging = self._checkpoints.staging(progress.step)
        state.world.raise_on_all(self._checkpoints.saving(lambda: write(taken, staging)))

    def poll(self) -> Saved | Failed | None:
        if self._taken is not None and not self._polled:
            self._polled = True
            return None
        return self.wait()

    def wait(self) -> Saved | Failed | None:
        if self._taken is None:
            return None
        assert self._state is not None
        taken, self._taken = self._taken, None
        self._note("ends", taken.step)
        if taken.step in self.fails:
            return Failed(taken.step, NoRoom("the disk is full"))
        self._state.world.raise_on_all(self._checkpoints.saving(lambda: commit(taken, self._checkpoints)))
        return Saved(taken.step)

    def abort(self) -> None:
        if self._taken is not None:
            self._note("is aborted", self._taken.step)
            self._taken = None

    def _note(self, word: str, step: int) -> None:
        if os.environ["RANK"] == "0":
            events = (self._checkpoints.folder.parent / "events.jsonl").read_text().count('"checkpoint"')
            with self.notes.open("a") as notes:
                notes.write(f"{step} {word}: {self._checkpoints.steps()} after {events} events\n")


class SavedLate(Classification):
    """Has the run that it is of saved so."""

    def __init__(self, classes: int, label_smoothing: float, fails: Sequence[int] = ()) -> None:
        super().__init__(classes, label_smoothing)
        LateSaver.fails = fails
        vars(trainer)["SynchronousSaver"] = LateSaver
