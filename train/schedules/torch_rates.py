"""The rates of an optimizer's groups by a scheduler of torch: after each step, each epoch, or each evaluation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from phalanx.config.metric_direction import Results, WatchedMetric
from phalanx.exit.codes import ConfigError

from .group_rates import GroupRates, ParamGroup
from .torch_scheduler import TorchScheduler

_AHEAD = 1024  # steps that the scheduler runs ahead of the applied ones, which the host need not know


class SteppedRates(GroupRates):
    """A scheduler that steps once an applied step. It runs ahead, so that kernels find the rates by `applied`."""

    def __init__(self, groups: Sequence[ParamGroup], scheduler: TorchScheduler, steps: int, name: str) -> None:
        self.groups = groups
        self._scheduler = scheduler
        self._name = name
        self._table = np.full((len(groups), steps + 1), np.nan)
        self._others: list[list[dict[str, Any]] | None] = []  # from the first known row on
        self._first = self._known = 0
        self._states: list[tuple[int, dict[str, Any]]] = []  # by row, where each advance began
        self._placed: list[torch.Tensor] = []
        self._take()
        self._advance(1)
        self.on_device = self._others[-1] is None

    def rate(self, group: int, applied: int, taken: int) -> float:
        self._advance(applied)
        return float(self._table[group, max(applied, self._first)])

    def set(self, applied: int, taken: int) -> None:
        self._advance(applied)
        others = self._others[applied - self._first]
        for i, group in enumerate(self.groups):
            group["lr"] = float(self._table[i, applied])
            if others is not None:
                group.update(others[i])

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        self._placed = [torch.from_numpy(rates).to(device, dtype) for rates in self._table]
        for group in self.groups:
            group["lr"] = torch.zeros((), dtype=dtype, device=device)

    def set_on_device(self, applied: torch.Tensor, taken: int) -> None:
        known = self._known
        self._advance(taken)  # no fewer than `applied`
        if self._known != known:
            for placed, rates in zip(self._placed, self._table, strict=True):
                placed[known : self._known].copy_(torch.from_numpy(rates[known : self._known]))
        for group, placed in zip(self.groups, self._placed, strict=True):
            torch.take(placed, applied, out=group["lr"])

    def state(self, applied: int, taken: int) -> Mapping[str, Any]:
        """Of the last advance that began before `applied`, from where the few steps to it are made again."""
        self._advance(applied)
        self._states = [
            *[s for s in self._states if s[0] <= applied][-1:],
            *[s for s in self._states if s[0] > applied],
        ]
        row, state = self._states[0]
        return {"row": row, "state": state}

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state is None:
            return
        self._scheduler.load(state["state"])
        self._first = self._known = int(state["row"])
        self._others, self._states = [], []
        self._take()

    def _take(self) -> None:
        """Keep what the scheduler says of the step that follows the known ones."""
        self._states.append((self._known, self._scheduler.state()))
        self._note()

    def _note(self) -> None:
        self._table[:, self._known] = self._scheduler.rates
        self._others.append(self._scheduler.others)
        self._known += 1

    def _advance(self, row: int) -> None:
        """Know at least `row`, where the run has it."""
        end = self._table.shape[1]
        if row < self._known or self._known == end:
            return
        self._states.append((self._known - 1, self._scheduler.state()))
        while self._known < min(end, row + _AHEAD):
            self._scheduler.advance()
            self._note()
        if self._placed and (others := self._others[-1]) is not None:
            raise ConfigError(
                f"{self._name} begins to set {', '.join(others[0])} within the run, which fused kernels on a GPU "
                "do not follow. Type optim.fused=false"
            )


class CountedRates(GroupRates):
    """A scheduler whose rates change by what the host knows: at the beginning of an epoch, or after an evaluation."""

    def __init__(self, groups: Sequence[ParamGroup], scheduler: TorchScheduler) -> None:
        self.groups = groups
        self._scheduler = scheduler

    def rate(self, group: int, applied: int, taken: int) -> float:
        return self._scheduler.rates[group]

    def set(self, applied: int, taken: int) -> None:
        for group, rate in zip(self.groups, self._scheduler.rates, strict=True):
            group["lr"] = rate
        self._set_others()

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        for group in self.groups:
            group["lr"] = torch.zeros((), dtype=dtype, device=device)

    def set_on_device(self, applied: torch.Tensor, taken: int) -> None:
        for group, rate in zip(self.groups, self._scheduler.rates, strict=True):
            group["lr"].fill_(rate)
        self._set_others()

    def _set_others(self) -> None:
        for group, others in zip(self.groups, self._scheduler.others or (), strict=False):
            group.update(others)

    def state(self, applied: int, taken: int) -> Mapping[str, Any]:
        return self._scheduler.state()

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state is not None:
            self._scheduler.load(state)


class EpochRates(CountedRates):
    """A scheduler that steps once an epoch; `epoch_of` a step is a whole number, skipped steps counted."""

    def __init__(self, groups: Sequence[ParamGroup], scheduler: TorchScheduler, epoch_of: Callable[[int], int]) -> None:
        super().__init__(groups, scheduler)
        self._epoch_of = epoch_of
        self._epoch = 0

    def rate(self, group: int, applied: int, taken: int) -> float:
        self._reach(taken)
        return super().rate(group, applied, taken)

    def set(self, applied: int, taken: int) -> None:
        self._reach(taken)
        super().set(applied, taken)

    def set_on_device(self, applied: torch.Tensor, taken: int) -> None:
        self._reach(taken)
        super().set_on_device(applied, taken)

    def state(self, applied: int, taken: int) -> Mapping[str, Any]:
        return {"epoch": self._epoch, "state": super().state(applied, taken)}

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state is not None:
            self._epoch = int(state["epoch"])
            super().load(state["state"])

    def _reach(self, taken: int) -> None:
        while self._epoch < self._epoch_of(taken):
            self._scheduler.advance()
            self._epoch += 1


class EvaluationRates(CountedRates):
    """A ReduceLROnPlateau, which steps with the metric `watched` of each evaluation."""

    def __init__(self, groups: Sequence[ParamGroup], scheduler: TorchScheduler, watched: WatchedMetric) -> None:
        super().__init__(groups, scheduler)
        self._watched = watched

    def evaluated(self, results: Results) -> None:
        value = self._watched.value(results)
        self._scheduler.advance(math.nan if value is None else value)
