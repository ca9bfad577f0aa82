"""What the steps since the last look left behind: kept as device scalars, fetched at once, the same on every rank."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from train.step import Taken
from train.world import World


@dataclass(frozen=True)
class Record:
    """One step over all ranks. `ratios` maps a metric to its sum and its count."""

    step: int
    ratios: dict[str, tuple[float, float]]
    norm: float
    skipped: bool

    @property
    def loss_finite(self) -> bool:
        return math.isfinite(self.ratios["loss"][0])


@dataclass
class Window:
    names: Sequence[str]
    _taken: list[Taken] = field(default_factory=list)

    def add(self, taken: Taken) -> None:
        self._taken.append(taken)

    def drain(self, world: World, asks: bool = False) -> tuple[list[Record], bool]:
        """The records of all steps since the last call, in order, and whether any rank `asks`.

        All ranks call it, after the same step. It is the only wait for the device, and the only word between ranks
        beside the gradients, so whatever they have to agree on rides along.
        """
        taken, self._taken = self._taken, []
        own = torch.zeros(len(taken), len(self.names), 2, dtype=torch.float64)
        shared = torch.zeros(len(taken), 2, dtype=torch.float64)
        scalars = _Scalars()
        for row, step in enumerate(taken):
            scalars.put(step.norm, shared[row, 0])
            scalars.put(step.skipped, shared[row, 1])
            for ratios in step.ratios:
                for column, name in enumerate(self.names):
                    scalars.put(ratios[name].total, own[row, column, 0])
                    scalars.put(ratios[name].count, own[row, column, 1])
        scalars.fetch()
        both = world.sum(torch.cat([own.flatten(), torch.tensor([float(asks)], dtype=torch.float64)]))
        total = both[:-1].view_as(own).tolist()
        records = [
            Record(step.step, {n: (r[0], r[1]) for n, r in zip(self.names, row, strict=True)}, norm, bool(skipped))
            for step, row, (norm, skipped) in zip(taken, total, shared.tolist(), strict=True)
        ]
        return records, bool(both[-1])


class _Scalars:
    """Device scalars and the host cells to add them to; one transfer a dtype."""

    def __init__(self) -> None:
        self._values: dict[torch.dtype, list[torch.Tensor]] = {}
        self._cells: dict[torch.dtype, list[torch.Tensor]] = {}

    def put(self, value: torch.Tensor | int, cell: torch.Tensor) -> None:
        if isinstance(value, torch.Tensor):
            self._values.setdefault(value.dtype, []).append(value)
            self._cells.setdefault(value.dtype, []).append(cell)
        else:
            cell += value

    def fetch(self) -> None:
        for dtype, values in self._values.items():
            fetched = torch.stack(values).to("cpu", torch.float64)
            torch._foreach_add_(self._cells[dtype], list(fetched.unbind()))


def mean(ratios: Sequence[tuple[float, float]]) -> float | None:
    """Sum of the sums over sum of the counts; None where nothing was counted."""
    count = sum(count for _, count in ratios)
    return sum(total for total, _ in ratios) / count if count else None
