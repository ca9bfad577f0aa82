"""Asynchronous successive halving: who goes on at a rung, who waits there, and who of those goes on after all.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), algorithm 2. A trial that waits has left
its slot and keeps its checkpoint; promoted, it goes on from there.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Climber:
    """A trial whose steps take `batch` samples each, and its evaluations so far: step -> value."""

    batch: int
    values: Mapping[int, float]


@dataclass(frozen=True)
class Ladder:
    """Rungs at `first`, `first` * `eta`, … steps of `batch` samples; a trial with other batches has other steps there.

    A trial is evaluated every `every` steps, and comes to a rung at the first of them that is not before it. Less is
    better where `smaller`.
    """

    first: int
    eta: int
    batch: int
    every: int
    smaller: bool

    def reached(self, trial: Climber) -> int:
        """How many rungs a trial has come to."""
        furthest, rung = max(trial.values, default=0), 0
        while self._step(rung, trial) <= furthest:
            rung += 1
        return rung

    def next_step(self, trial: Climber) -> int:
        """The step of the next rung that a trial comes to."""
        return self._step(self.reached(trial), trial)

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

    def leader(self, waiting: Mapping[int, Climber]) -> int:
        """The best of those that came furthest, by number."""

        def place(number: int) -> tuple[int, float, int]:
            reached = self.reached(waiting[number])
            return -reached, self._at(reached - 1, waiting[number]) if reached else 0.0, number

        return min(waiting, key=place)

    def _step(self, rung: int, trial: Climber) -> int:
        steps = self.first * float(self.eta) ** rung * self.batch / trial.batch
        return max(1, math.ceil(steps / self.every)) * self.every

    def _at(self, rung: int, trial: Climber) -> float:
        """The value that counts at a rung. Less is better."""
        at = self._step(rung, trial)
        value = trial.values[min(step for step in trial.values if step >= at)]
        return value if self.smaller else -value
