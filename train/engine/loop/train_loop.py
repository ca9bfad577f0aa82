"""The train loop: step after step, and logging, evaluation and saving between them."""

import time
from dataclasses import dataclass, field

from phalanx.config.metric_direction import of_checkpoint
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.signals import StopRequest

from ...distributed.stop_agreement import StopAgreement
from ...freezing.freezing import Freezing
from ...loading.prefetch import prefetch_to_device
from ...stopping.early_stop import EarlyStop
from ..sanity_check import retrain
from .evaluate_sets import evaluate_sets
from .run_context import RunContext
from .saves import Saves
from .skipped_steps import STRIDE, SkipPoll

_LISTED = 8  # names in an event


@dataclass
class TrainLoop:
    """The loop over the steps of a run, and what decides that it ends."""

    run: RunContext
    saves: Saves
    stop: StopAgreement
    early_stop: EarlyStop
    skip_poll: SkipPoll = field(default_factory=SkipPoll)

    def fit(self) -> StopRequest | None:
        """Train to the end, or to a stop that all ranks agreed on, whose request is returned. All ranks call it."""
        run, config, progress = self.run, self.run.config, self.run.progress
        parts, loader, times = run.parts, run.parts.loader, run.parts.evaluations.times
        if times.before_training(progress.step) and self._evaluate():
            self.saves.save(ends=False)
        works = prefetch_to_device(loader.from_step(progress.step), parts.mover, run.world.device)
        while progress.step < loader.timeline.steps and progress.ended_by is None:
            if (request := self.stop.before(progress.step)) is not None:
                if request.code is ExitCode.FINISHED:
                    self._end("time_limit", why=request.why)
                    break
                self._leave(request)
                return request
            if parts.freezing is not None:
                _freeze(run, parts.freezing)
            run.world.watchdog.at("data", progress.step)
            with user_error.context(step=progress.step + 1):
                with run.meter.part("data"), user_error.context(set="data.train"):
                    work = next(works)
                with run.meter.part("step"):
                    result = parts.step(work)
                    run.window.add(result)
            progress.step += 1
            progress.position += work.samples
            save = self._due(config.checkpoint.every)
            amid_skips = progress.step % STRIDE == 0 and self.skip_poll.at(result)
            if self._due(config.log.every):
                save |= self._log()
            elif amid_skips:
                self._take()
            if progress.step == loader.timeline.steps:
                self.saves.average()
            if times.after(progress.step, progress.position, work.samples):
                save |= self._evaluate()
            if (reached := self.early_stop.reached(progress)) is not None:
                self._end("early_stop", **reached)
            elif save:
                self.saves.save(ends=progress.step == loader.timeline.steps)
            else:
                self.saves.poll()
        return None

    def _end(self, ended_by: str, **facts: object) -> None:
        """What comes with a last step, as far as it was not done at this one. All ranks call it, after the same step."""
        run, progress = self.run, self.run.progress
        progress.ended_by = ended_by
        run.recorder.event(ended_by, **facts)
        if run.recorder.lined_step != progress.step:
            self._log()
        averaged = self.saves.average()
        if progress.evaluated != progress.step:
            self._evaluate()
        elif averaged:  # of the weights before, whose lines stay
            run.recorder.take_results(evaluate_sets(run, lines=False), of_checkpoint(run.config))
        self.saves.save(ends=True)

    def _due(self, every: int | None) -> bool:
        step = self.run.progress.step
        return step == self.run.parts.loader.timeline.steps or (every is not None and step % every == 0)

    def _log(self) -> bool:
        """Write the line of the steps since the last one. Returns whether a save is due by time, the same on all ranks."""
        overdue = self._take(asks=self.saves.is_overdue())
        self.run.recorder.write_train(self.run.meter.since_mark(), self.run.parts.state.updater)
        return overdue

    def _take(self, asks: bool = False) -> bool:
        self.run.world.watchdog.at("log", self.run.progress.step)
        with self.run.meter.part("log"):
            return self.run.take_steps(asks=asks)

    def _evaluate(self) -> bool:
        """Evaluate on each set and write its line. Returns whether this is the best so far."""
        run, progress = self.run, self.run.progress
        results = evaluate_sets(run)
        if not results or progress.evaluated == progress.step:
            return False  # a start before took these results, and saved: their lines alone are written anew
        run.parts.state.updater.evaluated(results)
        self.early_stop.take(results, progress)
        return run.recorder.take_results(results, of_checkpoint(run.config))

    def _leave(self, request: StopRequest) -> None:
        """Save, and record why the run stops. All ranks call it, after the same step."""
        if request.code is ExitCode.CONFIG:
            raise ConfigError(request.why, agreed=True)
        self.saves.wait(ends=False)
        if self.saves.saved_step != self.run.progress.step:
            self.saves.save(ends=True)
        name = "preempt" if request.code is ExitCode.PREEMPTED else "stop"
        took_s = time.time() - request.received
        self.run.recorder.event(name, why=request.why, took_s=took_s, grace_s=self.saves.grace_s)
        self.run.recorder.close(None)
        self.saves.warn_if_late(took_s)


def _freeze(run: RunContext, freezing: Freezing) -> None:
    """Freeze and unfreeze what is due before the next step. All ranks call it."""
    step = run.progress.step
    if (change := freezing.before(step, run.parts.state.model)) is None:
        return
    run.world.watchdog.at("warm up", step)
    with run.meter.part("freeze"):
        retrain(run.parts, change.trained)  # all ranks take part
    told = {"frozen": len(change.frozen), "trained": len(change.trained), "names": change.frozen[:_LISTED]}
    run.recorder.event("freeze", **told, batch_norms_in_eval=change.batch_norms[:_LISTED])
