"""End a run whose metric gets no better: the same decision on all ranks, as all have the same results."""

from dataclasses import dataclass

from phalanx.config.metric_direction import Results, WatchedMetric, early_stop_metric
from phalanx.config.schema import Config

from ..checkpoint.progress import EarlyStopState, Progress


@dataclass(frozen=True)
class EarlyStop:
    """`patience` evaluations in a row that are not better by more than `min_delta` end a run; none without a `metric`.

    The run goes from step `first` to `last`, where it ends anyway.
    """

    metric: WatchedMetric | None
    patience: int
    min_delta: float
    first: int
    last: int

    def take(self, results: Results, progress: Progress) -> None:
        """Count an evaluation after `progress.step` steps, whose metric may be missing or not finite: then it is no better.

        One that is repeated after a restart counts once. Before the first step nothing is waited for.
        """
        before, step = progress.early_stop, progress.step
        if self.metric is None or before.step == step:
            return
        value = self.metric.value(results)
        if value is not None and (before.best is None or self._is_better(self.metric, value, before.best)):
            progress.early_stop = EarlyStopState(step, value, 0)
        else:
            progress.early_stop = EarlyStopState(step, before.best, before.waited + (step > self.first))

    def reached(self, progress: Progress) -> dict[str, object] | None:
        """The facts for the event where an evaluation after this step ends the run, else None. The same on all ranks."""
        state = progress.early_stop
        if self.metric is None or state.waited < self.patience or not state.step == progress.step < self.last:
            return None
        return {"metric": f"{self.metric.split}/{self.metric.name}", "best": state.best, "evaluations": state.waited}

    def _is_better(self, metric: WatchedMetric, value: float, best: float) -> bool:
        sign = 1 if metric.is_better(1.0, 0.0) else -1
        return sign * (value - best) > self.min_delta


def early_stop(config: Config, first: int, last: int) -> EarlyStop:
    """As the config has it. Raises ConfigError."""
    stop = config.early_stop
    return EarlyStop(early_stop_metric(config), stop.patience, stop.min_delta, first, last)
