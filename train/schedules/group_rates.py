"""The rates of some groups of an optimizer: set before each step, by its number."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from phalanx.config.metric_direction import Results

from .schedule import Factors

ParamGroup = dict[str, Any]  # of an optimizer


class GroupRates(ABC):
    """Sets what a schedule decides in `groups`, all of one optimizer, before each step.

    A step follows `applied` ones that were not skipped, of `taken` in all.
    """

    groups: Sequence[ParamGroup]
    on_device: bool = True  # whether `set_on_device` sets all, so that the host need not know `applied`

    @abstractmethod
    def rate(self, group: int, applied: int, taken: int) -> float | None:
        """The learning rate of a group; None where it has none of ours."""

    @abstractmethod
    def set(self, applied: int, taken: int) -> None:
        """Before a step, on the host."""

    @abstractmethod
    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Give every group a rate that lives on the device, for kernels to read and `set_on_device` to overwrite."""

    @abstractmethod
    def set_on_device(self, applied: torch.Tensor, taken: int) -> None:
        """Before a step, without waiting for `applied`, a scalar on the device."""

    def evaluated(self, results: Results) -> None:  # noqa: B027
        """After an evaluation, whose results are the same on all ranks. Most schedules do nothing then."""

    def state(self, applied: int, taken: int) -> Mapping[str, Any] | None:
        """What a restart needs beside the number of steps, as plain values; None for nothing."""
        return None

    def load(self, state: Mapping[str, Any] | None) -> None:  # noqa: B027
        """Restore what `state` returned; nothing where there is none."""


class TableRates(GroupRates):
    """A table of the whole run's factors of the peak rates, shape (steps + 1,), by the number of applied steps."""

    def __init__(self, groups: Sequence[ParamGroup], peaks: Sequence[float | None], factors: Factors) -> None:
        """`peaks` are the groups' rates where the factor is 1; None for a group without a rate of ours."""
        self.groups = groups
        tables = {peak: factors * peak for peak in peaks if peak is not None}  # one for all groups of a peak
        self._tables = [None if peak is None else tables[peak] for peak in peaks]
        self._on_device: list[torch.Tensor | None] = []

    def rate(self, group: int, applied: int, taken: int) -> float | None:
        table = self._tables[group]
        return None if table is None else float(table[applied])

    def set(self, applied: int, taken: int) -> None:
        for group, table in zip(self.groups, self._tables, strict=True):
            if table is not None:
                group["lr"] = float(table[applied])

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        placed = {id(table): torch.from_numpy(table).to(device, dtype) for table in self._tables if table is not None}
        self._on_device = [None if table is None else placed[id(table)] for table in self._tables]
        for group, table in zip(self.groups, self._tables, strict=True):
            if table is not None:
                group["lr"] = torch.zeros((), dtype=dtype, device=device)

    def set_on_device(self, applied: torch.Tensor, taken: int) -> None:
        for group, table in zip(self.groups, self._on_device, strict=True):
            if table is not None:
                torch.take(table, applied, out=group["lr"])
