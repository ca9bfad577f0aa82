"""Lower the rate where a metric of evaluations no longer gets better."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.config.metric_direction import Results, WatchedMetric
from phalanx.config.schema import Mode

from .group_rates import ParamGroup, TableRates
from .schedule import Factors, Warmed, check_fraction


@dataclass(frozen=True)
class Progress:
    """`bad` evaluations in a row were not better than `best`; `pause` of the next ones do not count; `scale` is the rate's
    share of the peak."""

    best: float | None = None
    bad: int = 0
    pause: int = 0
    scale: float = 1.0


class Plateau(Warmed):
    """The rate times `factor` after `patience` evaluations, and one more, without a better `metric`.

    As torch's ReduceLROnPlateau with an absolute threshold, `min_delta`: better is what is better by more than that. After
    a reduction `cooldown` evaluations do not count. No rate is less than the share `final` of the peak. `mode` None: as
    the metric's name tells. All ranks decide by the same numbers; a checkpoint holds what came before.
    """

    def __init__(
        self,
        factor: float,
        patience: int,
        metric: str,
        min_delta: float = 0.0,
        cooldown: int = 0,
        final: float = 0.0,
        mode: Mode | None = None,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(warmup_steps)
        check_fraction("final", final)
        if not 0 < factor < 1:
            raise ValueError(f"factor is {factor}, which is not between 0 and 1")
        for name, value in (("patience", patience), ("cooldown", cooldown), ("min_delta", min_delta)):
            if value < 0:
                raise ValueError(f"{name} is {value}, which is negative")
        self.metric, self.mode = metric, mode
        self._reduction, self._final = factor, final
        self._patience, self._cooldown, self._min_delta = patience, cooldown, min_delta

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        return np.ones(len(applied))

    def decide(self, before: Progress, value: float | None, watched: WatchedMetric) -> Progress:
        """What an evaluation makes of the progress `before` it. No value, or one that is not finite, is not better."""
        limit = before.best
        if limit is not None:
            limit += self._min_delta if watched.mode is Mode.max else -self._min_delta
        better = value is not None and (limit is None or watched.is_better(value, limit))
        best = value if better else before.best
        bad = 0 if better else before.bad + 1
        pause = max(0, before.pause - 1)
        if before.pause:
            bad = 0
        if bad > self._patience:
            return Progress(best, 0, self._cooldown, max(before.scale * self._reduction, self._final))
        return Progress(best, bad, pause, before.scale)


class PlateauRates(TableRates):
    """The rates of groups under a Plateau."""

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        peaks: Sequence[float | None],
        factors: Factors,
        schedule: Plateau,
        watched: WatchedMetric,
    ) -> None:
        super().__init__(groups, peaks, factors)
        self._whole = [None if table is None else table.copy() for table in self._tables]
        self._schedule = schedule
        self._watched = watched
        self._progress = Progress()

    def evaluated(self, results: Results) -> None:
        self._follow(self._schedule.decide(self._progress, self._watched.value(results), self._watched))

    def state(self, applied: int, taken: int) -> Mapping[str, Any]:
        return asdict(self._progress)

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state is not None:
            self._follow(Progress(**state))

    def _follow(self, progress: Progress) -> None:
        self._progress = progress
        for whole, table in zip(self._whole, self._tables, strict=True):
            if whole is not None and table is not None:
                table[:] = whole * progress.scale
        for table, placed in zip(self._tables, self._on_device, strict=False):
            if table is not None and placed is not None:
                placed.copy_(torch.from_numpy(table))
