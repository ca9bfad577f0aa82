"""The train loop: step after step, and logging, evaluation and saving between them."""

import logging
import time
from dataclasses import dataclass, field

from phalanx.common.meter import Meter
from phalanx.config.metric_direction import of_checkpoint
from phalanx.config.schema import Config
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError, ExitCode, NoRoom, PeerFailed
from phalanx.exit.signals import StopRequest
from phalanx.run_folder.checkpoints import Checkpoints

from ..checkpoint.progress import Progress
from ..checkpoint.saver import Failed, Saved, Saver
from ..distributed.rank_errors import code_of
from ..distributed.stop_agreement import StopAgreement
from ..distributed.world import World
from ..freezing.freezing import Freezing
from ..loading.prefetch import prefetch_to_device
from ..stopping.average_last import AverageLast, steps_needed
from ..stopping.early_stop import EarlyStop
from ..stopping.retention import retain
from .build import Parts
from .metric_window import MetricWindow
from .recorder import Recorder
from .sanity_check import retrain
from .skipped_steps import STRIDE, SkipPoll

_LONGER = "a stop that the launcher grants stop.grace_s for would lose steps. Grant more and type stop.grace_s=…"
_LISTED = 8  # names in an event
_PATIENCE = 5  # failed saves in a row before the run gives up

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saving:
    """A save in progress: the best steps when it began, the best first, and when that was (time.monotonic())."""

    best_steps: list[int]
    at: float


@dataclass
class TrainLoop:
    """The state of the train loop."""

    config: Config
    world: World
    parts: Parts
    progress: Progress
    meter: Meter
    recorder: Recorder
    checkpoints: Checkpoints
    saver: Saver
    window: MetricWindow
    stop: StopAgreement
    grace_s: float  # the launcher's time from SIGTERM to SIGKILL
    early_stop: EarlyStop
    average_last: AverageLast | None
    skip_poll: SkipPoll = field(default_factory=SkipPoll)
    saving: Saving | None = None  # begun and not yet done
    saved: float = field(default_factory=time.monotonic)  # when the newest save was done
    saved_step: int | None = None
    failed_saves: int = 0  # in a row

    def fit(self) -> StopRequest | None:
        """Train to the end, or to a stop that all ranks agreed on, whose request is returned. All ranks call it."""
        loader, progress = self.parts.loader, self.progress
        if self.parts.evaluations.times.before_training(progress.step) and self._evaluate():
            self._save(ends=False)
        works = prefetch_to_device(loader.from_step(progress.step), self.parts.mover, self.world.device)
        while progress.step < loader.timeline.steps and progress.ended_by is None:
            if (request := self.stop.before(progress.step)) is not None:
                if request.code is ExitCode.FINISHED:
                    self._end("time_limit", why=request.why)
                    break
                self._leave(request)
                return request
            if self.parts.freezing is not None:
                _freeze(self.parts, self.parts.freezing, self.recorder, self.meter, self.world)
            self.world.watchdog.at("data", progress.step)
            with user_error.context(step=progress.step + 1):
                with self.meter.part("data"), user_error.context(set="data.train"):
                    work = next(works)
                with self.meter.part("step"):
                    result = self.parts.step(work)
                    self.window.add(result)
            progress.step += 1
            progress.position += work.samples
            save = self._due(self.config.checkpoint.every)
            amid_skips = progress.step % STRIDE == 0 and self.skip_poll.at(result)
            if self._due(self.config.log.every):
                save |= self._log()
            elif amid_skips:
                self._take()
            if progress.step == loader.timeline.steps:
                self._average()
            if self.parts.evaluations.times.after(progress.step, progress.position, work.samples):
                save |= self._evaluate()
            if (reached := self.early_stop.reached(progress)) is not None:
                self._end("early_stop", **reached)
            elif save:
                self._save(ends=progress.step == loader.timeline.steps)
            elif self.saving is not None:
                self._poll()
        return None

    def _end(self, ended_by: str, **facts: object) -> None:
        """What comes with a last step, as far as it was not done at this one. All ranks call it, after the same step."""
        self.progress.ended_by = ended_by
        self.recorder.event(ended_by, **facts)
        if self.recorder.lined_step != self.progress.step:
            self._log()
        averaged = self._average()
        if self.progress.evaluated != self.progress.step:
            self._evaluate()
        elif averaged:  # of the weights before, whose lines stay
            results = _results(self.parts, self.recorder, self.meter, self.world, lines=False)
            self.recorder.take_results(results, of_checkpoint(self.config))
        self._save(ends=True)

    def _average(self) -> bool:
        """At the end, the average of the last checkpoints, if asked for. All ranks call it, after the same step."""
        if self.average_last is None:
            return False
        self._wait(ends=False)
        self.world.watchdog.at("checkpoint", self.progress.step)
        with self.meter.part("checkpoint"):
            steps = self.average_last.take(self.parts.state, self.checkpoints, self.progress.step)
        self.recorder.event("average", checkpoints=steps)
        return True

    def _due(self, every: int | None) -> bool:
        step = self.progress.step
        return step == self.parts.loader.timeline.steps or (every is not None and step % every == 0)

    def _log(self) -> bool:
        """Write the line of the steps since the last one. Returns whether a save is due by time, the same on all ranks."""
        overdue = self._take(asks=self._overdue())
        self.recorder.write_train(self.meter.since_mark(), self.parts.state.updater)
        return overdue

    def _take(self, asks: bool = False) -> bool:
        """Fetch and count the new steps; returns whether any rank `asks`. All ranks call it, after the same step."""
        self.world.watchdog.at("log", self.progress.step)
        with self.meter.part("log"):
            records, asked = self.window.fetch(self.world, asks=asks)  # all ranks take part
            self.recorder.take(records)
        return asked

    def _overdue(self) -> bool:
        every_s = self.config.checkpoint.every_s
        if every_s is None or self.saving is not None:
            return False
        return self.world.is_rank_zero and time.monotonic() - self.saved >= every_s

    def _evaluate(self) -> bool:
        """Evaluate on each set and write its line. Returns whether this is the best so far."""
        results = _results(self.parts, self.recorder, self.meter, self.world)
        if not results or self.progress.evaluated == self.progress.step:
            return False  # a start before took these results, and saved: their lines alone are written anew
        self.parts.state.updater.evaluated(results)
        self.early_stop.take(results, self.progress)
        return self.recorder.take_results(results, of_checkpoint(self.config))

    def _leave(self, request: StopRequest) -> None:
        """Save, and record why the run stops. All ranks call it, after the same step."""
        if request.code is ExitCode.CONFIG:
            raise ConfigError(request.why, agreed=True)
        self._wait(ends=False)
        if self.saved_step != self.progress.step:
            self._save(ends=True)
        name = "preempt" if request.code is ExitCode.PREEMPTED else "stop"
        took_s = time.time() - request.received
        self.recorder.event(name, why=request.why, took_s=took_s, grace_s=self.grace_s)
        self.recorder.close(None)
        if took_s > self.grace_s:
            logger.warning("from the request to stop to a saved checkpoint it took %.1f s; %s", took_s, _LONGER)

    def _save(self, *, ends: bool) -> None:
        """Begin to save, after the end of the save before; wait for this one's where the run `ends` here.

        All ranks call it, after the same step.
        """
        self._wait(ends=False)
        self.world.watchdog.at("checkpoint", self.progress.step)
        self.saving = Saving([step for step, _ in self.progress.top], time.monotonic())
        with self.meter.part("checkpoint"):
            records, _ = self.window.fetch(self.world)  # all ranks take part
            self.recorder.take(records)
            try:
                self.world.raise_on_all(self.recorder.sync)  # all ranks take part
            except (NoRoom, PeerFailed) as error:
                return self._saved(Failed(self.progress.step, error), ends)
            self.saver.begin(self.parts.state, self.progress)
        return self._wait(ends) if ends else self._poll()

    def _poll(self) -> None:
        """Poll the save that was begun. All ranks call it, after the same step."""
        with self.meter.part("checkpoint"):
            answer = self.saver.poll()
        if answer is not None:
            self._saved(answer, ends=False)

    def _wait(self, ends: bool) -> None:
        """Wait for the save that was begun, if there is one. All ranks call it, after the same step."""
        if self.saving is None:
            return
        self.world.watchdog.at("checkpoint", self.progress.step)
        with self.meter.part("checkpoint"):
            answer = self.saver.wait()
        assert answer is not None, "a saver that has begun has an answer in the end"
        self._saved(answer, ends)

    def _saved(self, answer: Saved | Failed, ends: bool) -> None:
        """The save has ended, the same on all ranks: write the event and apply retention.

        After a write error the run continues to the next save, unless it `ends` here.
        """
        assert self.saving is not None
        begun, self.saving, self.saved = self.saving, None, time.monotonic()
        if isinstance(answer, Failed):
            self._failed(answer, ends)
            return
        self.saved_step, self.failed_saves = answer.step, 0
        if (took_s := self.saved - begun.at) > self.grace_s:
            logger.warning("saving took %.1f s; %s", took_s, _LONGER)
        self.recorder.event("checkpoint", step=answer.step, took_s=round(took_s, 3))
        if self.world.is_rank_zero:
            needed = steps_needed(self.average_last, self.parts.state, answer.step)
            retain(self.checkpoints, self.config.checkpoint, begun.best_steps, needed)

    def _failed(self, answer: Failed, ends: bool) -> None:
        """The save failed, the same on all ranks. Raises its error unless a later save may succeed."""
        self.failed_saves += 1
        error = answer.error
        if code_of(error) is not ExitCode.NO_ROOM or ends or self.failed_saves > _PATIENCE:
            raise error
        why = str(error) if isinstance(error, NoRoom) else error.failure.text
        logger.warning("step %d was not saved, which is tried again when it is due: %s", answer.step, why)
        self.recorder.event("save_failed", step=answer.step, why=why)


def _freeze(parts: Parts, freezing: Freezing, recorder: Recorder, meter: Meter, world: World) -> None:
    """Freeze and unfreeze what is due before the next step. All ranks call it."""
    step = recorder.progress.step
    if (change := freezing.before(step, parts.state.model)) is None:
        return
    world.watchdog.at("warm up", step)
    with meter.part("freeze"):
        retrain(parts, change.trained)  # all ranks take part
    told = {"frozen": len(change.frozen), "trained": len(change.trained), "names": change.frozen[:_LISTED]}
    recorder.event("freeze", **told, batch_norms_in_eval=change.batch_norms[:_LISTED])


def _results(
    parts: Parts, recorder: Recorder, meter: Meter, world: World, *, lines: bool = True
) -> dict[str, dict[str, float]]:
    """Evaluate on each set; write the event, and the line unless there is one of this step. All ranks call it."""
    state, step, results = parts.state, recorder.progress.step, dict[str, dict[str, float]]()
    world.watchdog.at("evaluate", step)
    for split, evaluation in parts.evaluations.sets.items():
        begin = time.monotonic()
        with meter.part("evaluate"), user_error.context(act="in an evaluation", step=step, set=evaluation.key):
            # All ranks take part, in one set after the other.
            found = evaluation(state.model, state.updater.average, world)
        write = recorder.write_evaluation if lines else recorder.evaluation_event
        write(split, found, took_s=round(time.monotonic() - begin, 3))
        results[split] = found.metrics
    return results
