"""Asynchronous successive halving: who goes on at a rung, who waits there, and who of those goes on after all.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), algorithm 2. A trial that waits has left
its slot and keeps its checkpoint; promoted, it goes on from there.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
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

    def fit(self, everyone: Mapping[int, Climber]) -> set[int]:
        """Of all trials, by their numbers, those that are good enough for the rung they came to last."""
        reached = {number: self.reached(trial) for number, trial in everyone.items()}
        found = {number for number, rungs in reached.items() if not rungs}
        at_rung: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for number, rungs in reached.items():
            for rung in range(rungs):
                at_rung[rung].append((self._at(rung, everyone[number]), number))
        for rung, there in at_rung.items():
            best = sorted(value for value, _ in there)[: len(there) // self.eta]
            # As good as the last of them is good enough.
            found |= {number for value, number in there if reached[number] == rung + 1 and best and value <= best[-1]}
        return found

    def leader(self, some: Mapping[int, Climber]) -> int:
        """The best of those that came furthest, by number."""

        def place(number: int) -> tuple[int, float, int]:
            reached = self.reached(some[number])
            return -reached, self._at(reached - 1, some[number]) if reached else 0.0, number

        return min(some, key=place)

    def _step(self, rung: int, trial: Climber) -> int:
        steps = self.first * float(self.eta) ** rung * self.batch / trial.batch
        return max(1, math.ceil(steps / self.every)) * self.every

    def _at(self, rung: int, trial: Climber) -> float:
        """The value that counts at a rung. Less is better."""
        at = self._step(rung, trial)
        value = trial.values[min(step for step in trial.values if step >= at)]
        return value if self.smaller else -value
