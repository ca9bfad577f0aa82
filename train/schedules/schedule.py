"""The learning rate as a pure function of the number of applied steps.

A schedule gives a factor of the peak rate. It takes arrays, so that the whole run's rates are computed once and looked up
on the device: a skipped step does not advance the rate, and needs no host synchronisation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

Factors = NDArray[np.float64]


class Schedule(ABC):
    @abstractmethod
    def factor(self, applied: NDArray[np.int64], total: int) -> Factors:
        """Factor of the peak rate for the step that follows `applied` ones, in a run of `total` steps."""


def factors(schedule: Schedule, steps: int) -> Factors:
    """A run's factors, shape (steps + 1,); the last is never used. Raises ConfigError for what cannot be one."""
    applied = np.arange(steps + 1)
    name = f"The schedule {type(schedule).__name__}"
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(schedule.factor(applied, steps), dtype=np.float64)
    except Exception as error:
        line = user_error.user_line(error)
        raise ConfigError(
            f"{name} fails: {' '.join(user_error.message(error).split())}{f' ({line})' if line else ''}. Its factor() is "
            "asked for all steps at once, with an array of their numbers: write np.where(applied < 10, …) for an if"
        ) from error
    if found.shape != applied.shape:
        raise ConfigError(
            f"{name} answers with the shape {found.shape} to an array of shape {applied.shape}, the numbers of all steps. "
            "Its factor() has to give one factor each: np.full(len(applied), 0.5) for one that stays"
        )
    for step in np.flatnonzero(~(np.isfinite(found[:steps]) & (found[:steps] >= 0)))[:1]:
        raise ConfigError(
            f"{name} gives {found[step]:g} for step {step + 1} of {steps}. A factor of the rate is finite and not negative"
        )
    return found


def share_of(applied: NDArray[np.int64], begin: float, end: float) -> Factors:
    """How much of the way from `begin` to `end` lies behind, between 0 and 1."""
    return np.clip((applied - begin) / max(end - begin, 1), 0.0, 1.0)


def check_fraction(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, which is not between {low} and {high}")


@dataclass(frozen=True)
class Warmed(Schedule):
    """Rises linearly for `warmup_steps` steps, at the end of which it is where `after` is."""

    warmup_steps: int

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, which is negative")

    def factor(self, applied: NDArray[np.int64], total: int) -> Factors:
        rise = np.minimum(1.0, (applied + 1) / (self.warmup_steps + 1))
        return rise * self.after(applied, total)

    @abstractmethod
    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        """The factor without the warm-up."""


@dataclass(frozen=True)
class Constant(Warmed):
    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        return np.ones(len(applied))


@dataclass(frozen=True)
class Cosine(Warmed):
    final: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("final", self.final)

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        share = share_of(applied, self.warmup_steps, total)
        return self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * share))


@dataclass(frozen=True)
class Linear(Warmed):
    final: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("final", self.final)

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        return 1 - (1 - self.final) * share_of(applied, self.warmup_steps, total)


@dataclass(frozen=True)
class Step(Warmed):
    step_every: int
    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_every < 1:
            raise ValueError(f"step_every is {self.step_every}, which is less than 1")
        check_fraction("gamma", self.gamma)

    def after(self, applied: NDArray[np.int64], total: int) -> Factors:
        return np.power(self.gamma, applied // self.step_every)


@dataclass(frozen=True)
class OneCycle(Schedule):
    rise: float
    start: float
    final: float

    def __post_init__(self) -> None:
        for name in ("rise", "start", "final"):
            check_fraction(name, getattr(self, name))

    def factor(self, applied: NDArray[np.int64], total: int) -> Factors:
        peak = self.rise * total
        up = self.start + (1 - self.start) * 0.5 * (1 - np.cos(np.pi * share_of(applied, 0, peak)))
        down = self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * share_of(applied, peak, total)))
        return np.where(applied < peak, up, down)
