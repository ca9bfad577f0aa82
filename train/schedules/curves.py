"""More schedules, each with the paper that it is from."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .schedule import Factors, Warmed, check_fraction, share_of


class Decay(Enum):
    """How a rate falls from 1 to 0 over the share x of a decay."""

    linear = "1 - x"
    cosine = "(1 + cos pi x) / 2"
    sqrt = "1 - sqrt x"


@dataclass(frozen=True)
class WarmupStableDecay(Warmed):
    """The peak rate, and in the last part of the run a decay to `final`: Hu et al. 2024 (MiniCPM), section 4.

    `decay` is the share of the run's steps in which it falls, `shape` how. Hägele et al. 2024, section 3.2, find `sqrt`
    best.
    """

    decay: float
    final: float
    shape: Decay

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("decay", self.decay)
        check_fraction("final", self.final)

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        x = share_of(applied, total - max(1.0, self.decay * total), total)
        if self.shape is Decay.linear:
            left = 1 - x
        else:
            left = (1 + np.cos(np.pi * x)) / 2 if self.shape is Decay.cosine else 1 - np.sqrt(x)
        return self.final + (1 - self.final) * left


@dataclass(frozen=True)
class InverseSquareRoot(Warmed):
    """Falls with the root of the steps after the warm-up: Vaswani et al. 2017, equation 3, with a peak of 1.

    It does not depend on the run's length.
    """

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        peak = self.warmup_steps + 1
        return np.sqrt(peak / np.maximum(applied + 1, peak))


@dataclass(frozen=True)
class Polynomial(Warmed):
    """To `final` along (1 - x)**power: Liu et al. 2015 (ParseNet), section 3.3; Chen et al. 2018 (DeepLab), power 0.9."""

    power: float
    final: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.power <= 0:
            raise ValueError(f"power is {self.power}, which is not more than 0")
        check_fraction("final", self.final)

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        return self.final + (1 - self.final) * (1 - share_of(applied, self.warmup_steps, total)) ** self.power


@dataclass(frozen=True)
class CosineRestarts(Warmed):
    """Cosines from the peak to `final`, one after another: SGDR, Loshchilov & Hutter 2017, equation 5.

    The first takes `period` steps, each other `growth` times as many as the one before it.
    """

    period: int
    growth: float
    final: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period < 1:
            raise ValueError(f"period is {self.period}, which is less than 1")
        if self.growth < 1:
            raise ValueError(f"growth is {self.growth}, which is less than 1")
        check_fraction("final", self.final)

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        since = np.maximum(applied - self.warmup_steps, 0)
        if self.growth == 1:  # as many cycles as the run is long, perhaps
            return self._within((since % self.period) / self.period)
        starts, length = [0.0], float(self.period)
        while starts[-1] + length <= since.max(initial=0):
            starts.append(starts[-1] + length)
            length *= self.growth
        begins = np.array(starts)
        cycle = np.searchsorted(begins, since, side="right") - 1
        return self._within((since - begins[cycle]) / (self.period * self.growth**cycle))

    def _within(self, x: Factors) -> Factors:
        """`x`: the share of a cosine that is done."""
        found: Factors = self.final + (1 - self.final) * (1 + np.cos(np.pi * x)) / 2
        return found


@dataclass(frozen=True)
class Piecewise(Warmed):
    """`factors[i]` from step `steps[i]` on, counted from 0: Krizhevsky et al. 2012, section 5; He et al. 2016, section 3.4.

    With `linear` straight lines between these points: Smith 2017, section 3.
    """

    steps: Sequence[int]
    factors: Sequence[float]
    linear: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps or len(self.steps) != len(self.factors):
            raise ValueError(f"steps is {list(self.steps)}, which are not as many as factors, {list(self.factors)}")
        if self.steps[0] != 0 or any(later <= step for step, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"steps is {list(self.steps)}, which does not rise from 0 on")
        if min(self.factors) < 0:
            raise ValueError(f"factors is {list(self.factors)}, which is negative somewhere")

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        if self.linear:
            return np.interp(applied, self.steps, self.factors)
        at = np.searchsorted(self.steps, applied, side="right") - 1
        found: Factors = np.asarray(self.factors, dtype=np.float64)[at]
        return found
