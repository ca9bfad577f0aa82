"""The saves of a run: one at a time, begun after a step and looked at after later ones."""

import logging
import time
from dataclasses import dataclass, field

from phalanx.exit.codes import ExitCode, NoRoom, PeerFailed
from phalanx.run_folder.checkpoints import Checkpoints

from ...checkpoint.saver import Failed, Saved, Saver
from ...distributed.rank_errors import code_of
from ...stopping.average_last import AverageLast, steps_needed
from ...stopping.retention import retain
from .run_context import RunContext

_LONGER = "a stop that the launcher grants stop.grace_s for would lose steps. Grant more and type stop.grace_s=…"
_PATIENCE = 5  # failed saves in a row before the run gives up

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saving:
    """A save in progress: the best steps when it began, the best first, and when that was (time.monotonic())."""

    best_steps: list[int]
    at: float


@dataclass
class Saves:
    """Saves, retention, and the average of the last checkpoints. All ranks call each method, after the same step."""

    run: RunContext
    saver: Saver
    checkpoints: Checkpoints
    average_last: AverageLast | None
    grace_s: float  # the launcher's time from SIGTERM to SIGKILL
    saving: Saving | None = None  # begun and not yet done
    saved_at: float = field(default_factory=time.monotonic)  # when the newest save was done
    saved_step: int | None = None
    failed: int = 0  # in a row

    def is_overdue(self) -> bool:
        """Whether a save is due by time; only rank 0 asks for one."""
        every_s = self.run.config.checkpoint.every_s
        if every_s is None or self.saving is not None:
            return False
        return self.run.world.is_rank_zero and time.monotonic() - self.saved_at >= every_s

    def save(self, *, ends: bool) -> None:
        """Begin to save, after the end of the save before; wait for this one's where the run `ends` here."""
        run = self.run
        self.wait(ends=False)
        run.world.watchdog.at("checkpoint", run.progress.step)
        self.saving = Saving([step for step, _ in run.progress.top], time.monotonic())
        with run.meter.part("checkpoint"):
            run.take_steps()
            try:
                run.world.raise_on_all(run.recorder.sync)  # all ranks take part
            except (NoRoom, PeerFailed) as error:
                return self._done(Failed(run.progress.step, error), ends)
            self.saver.begin(run.parts.state, run.progress)
        return self.wait(ends) if ends else self.poll()

    def poll(self) -> None:
        """Look whether the save that was begun is done, if there is one."""
        if self.saving is None:
            return
        with self.run.meter.part("checkpoint"):
            answer = self.saver.poll()
        if answer is not None:
            self._done(answer, ends=False)

    def wait(self, ends: bool) -> None:
        """Wait for the save that was begun, if there is one."""
        if self.saving is None:
            return
        self.run.world.watchdog.at("checkpoint", self.run.progress.step)
        with self.run.meter.part("checkpoint"):
            answer = self.saver.wait()
        assert answer is not None, "a saver that has begun has an answer in the end"
        self._done(answer, ends)

    def average(self) -> bool:
        """At the end, set the average of the last checkpoints. Returns whether it was asked for."""
        if self.average_last is None:
            return False
        run = self.run
        self.wait(ends=False)
        run.world.watchdog.at("checkpoint", run.progress.step)
        with run.meter.part("checkpoint"):
            steps = self.average_last.take(run.parts.state, self.checkpoints, run.progress.step)
        run.recorder.event("average", checkpoints=steps)
        return True

    def _done(self, answer: Saved | Failed, ends: bool) -> None:
        """The save has ended, the same on all ranks: write the event and apply retention.

        After a write error the run continues to the next save, unless it `ends` here.
        """
        assert self.saving is not None
        begun, self.saving, self.saved_at = self.saving, None, time.monotonic()
        if isinstance(answer, Failed):
            self._count_failed(answer, ends)
            return
        self.saved_step, self.failed = answer.step, 0
        if (took_s := self.saved_at - begun.at) > self.grace_s:
            logger.warning("saving took %.1f s; %s", took_s, _LONGER)
        self.run.recorder.event("checkpoint", step=answer.step, took_s=round(took_s, 3))
        if self.run.world.is_rank_zero:
            needed = steps_needed(self.average_last, self.run.parts.state, answer.step)
            retain(self.checkpoints, self.run.config.checkpoint, begun.best_steps, needed)

    def _count_failed(self, answer: Failed, ends: bool) -> None:
        """Raises the error of a failed save unless a later one may succeed."""
        self.failed += 1
        error = answer.error
        if code_of(error) is not ExitCode.NO_ROOM or ends or self.failed > _PATIENCE:
            raise error
        why = str(error) if isinstance(error, NoRoom) else error.failure.text
        logger.warning("step %d was not saved, which is tried again when it is due: %s", answer.step, why)
        self.run.recorder.event("save_failed", step=answer.step, why=why)

    def warn_if_late(self, took_s: float) -> None:
        """Where a stop took longer, from the request to a saved checkpoint, than the launcher waits."""
        if took_s > self.grace_s:
            logger.warning("from the request to stop to a saved checkpoint it took %.1f s; %s", took_s, _LONGER)
