"""ASHA, asynchronous successive halving: which trials are promoted at a rung and which are paused there.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), algorithm 2. A paused trial has
left its slot and keeps its checkpoint; once promoted, it resumes from there.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RungState:
    """How far a trial has come: steps of `batch` samples, evaluated every `every` steps, `values` by step. `promoted`
    counts the rungs that it was promoted from."""

    batch: int
    every: int
    values: Mapping[int, float]
    promoted: int = 0


@dataclass(frozen=True)
class Asha:
    """Rungs at `first`, `first` * `eta`, … steps of `batch` samples; a trial with other batches has other steps there.

    A trial reaches a rung at its first evaluation at or after it. Less is better where `smaller`.
    """

    first: int
    eta: int
    batch: int
    smaller: bool

    def reached(self, trial: RungState) -> int:
        """How many rungs a trial has reached."""
        furthest, rung = max(trial.values, default=0), 0
        while self._step(rung, trial) <= furthest:
            rung += 1
        return rung

    def next_step(self, trial: RungState) -> int:
        """The step at which a trial reaches its next rung."""
        return self._step(self.reached(trial), trial)

    def promotable(self, everyone: Mapping[int, RungState]) -> set[int]:
        """Of all trials, by number, those good enough to go on from the rung that they reached last."""
        reached = {number: self.reached(trial) for number, trial in everyone.items()}
        found = {number for number, rungs in reached.items() if not rungs}
        at_rung: dict[int, list[int]] = defaultdict(list)
        for number, rungs in reached.items():
            for rung in range(rungs):
                at_rung[rung].append(number)
        for rung, there in at_rung.items():
            best = self._best(rung, {number: everyone[number] for number in there})
            found |= {number for number in best if reached[number] == rung + 1}
        return found

    def _best(self, rung: int, there: Mapping[int, RungState]) -> list[int]:
        """The best 1/`eta` of the trials that reached a rung, and none whose value is not finite. On a tie those already
        promoted come first, so that a tie promotes no further trial."""

        def sort_key(number: int) -> tuple[float, bool, int]:
            return self._at(rung, there[number]), there[number].promoted <= rung, number

        numbers = [number for number in there if math.isfinite(self._at(rung, there[number]))]
        return sorted(numbers, key=sort_key)[: len(there) // self.eta]

    def best_paused(self, some: Mapping[int, RungState]) -> int | None:
        """The number of the best trial at the highest rung; None where no value is finite."""

        def sort_key(number: int) -> tuple[int, float, int]:
            reached = self.reached(some[number])
            return -reached, self._newest(some[number]), number

        return min((number for number in some if math.isfinite(self._newest(some[number]))), key=sort_key, default=None)

    def _newest(self, trial: RungState) -> float:
        """The value at the rung that a trial reached last; 0.0 before the first."""
        reached = self.reached(trial)
        return self._at(reached - 1, trial) if reached else 0.0

    def _step(self, rung: int, trial: RungState) -> int:
        steps = self.first * float(self.eta) ** rung * self.batch / trial.batch
        return max(1, math.ceil(steps / trial.every)) * trial.every

    def _at(self, rung: int, trial: RungState) -> float:
        """The value that counts at a rung. Less is better."""
        at = self._step(rung, trial)
        value = trial.values[min(step for step in trial.values if step >= at)]
        return value if self.smaller else -value
