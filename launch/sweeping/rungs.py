"""Asynchronous successive halving: who goes on at a rung, who waits there, and who of those goes on after all.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), algorithm 2. A trial that waits has left
its slot and keeps its checkpoint; promoted, it goes on from there. Rungs are shares of a whole run, as trials with other
batches have other numbers of steps.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Climber:
    """A trial of `steps` steps in all, and its evaluations so far: step -> value."""

    steps: int
    values: Mapping[int, float]


@dataclass(frozen=True)
class Ladder:
    """`count` rungs, each `eta` times as far as the one before and the end as far beyond the last one.

    Less is better where `smaller`.
    """

    count: int
    eta: int
    smaller: bool

    @classmethod
    def beginning_at(cls, first: int, steps: int, eta: int, smaller: bool) -> "Ladder":
        """As many rungs as fit between the step `first` and the end of a run of `steps`."""
        return cls(int(math.log(max(1.0, steps / first), eta) + 1e-9), eta, smaller)

    def reached(self, trial: Climber) -> int:
        """How many rungs a trial has come to."""
        furthest = max(trial.values, default=0)
        return sum(self._step(rung, trial) <= furthest for rung in range(self.count))

    def goes_on(self, trial: Climber, everyone: Iterable[Climber]) -> bool:
        """Whether a trial is good enough for the rung it came to last; `everyone` includes it."""
        reached = self.reached(trial)
        if not reached:
            return True
        there = sorted(self._at(reached - 1, other) for other in everyone if self.reached(other) >= reached)
        return self._at(reached - 1, trial) in there[: len(there) // self.eta]

    def next_of(self, waiting: Mapping[int, Climber], everyone: Iterable[Climber]) -> int | None:
        """Which of the trials that wait, by number, is to go on: from the highest rung where one is good enough."""
        all_of_them = list(everyone)
        fit = [number for number, trial in waiting.items() if self.goes_on(trial, all_of_them)]
        return max(fit, key=lambda number: (self.reached(waiting[number]), -number), default=None)

    def _step(self, rung: int, trial: Climber) -> int:
        return math.ceil(trial.steps * float(self.eta) ** (rung - self.count))

    def _at(self, rung: int, trial: Climber) -> float:
        """The value that counts at a rung: that of the first evaluation there or beyond. Less is better."""
        at = self._step(rung, trial)
        value = trial.values[min(step for step in trial.values if step >= at)]
        return value if self.smaller else -value
