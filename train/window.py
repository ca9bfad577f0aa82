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
    scale: float  # factor of the loss, 0 without loss scaling

    @property
    def not_finite(self) -> str:
        """What made the step be skipped: the loss, the gradient, or an overflow, which a lower scale can mend."""
        if not math.isfinite(self.ratios["loss"][0]):
            return "loss"
        return "overflow" if self.scale > 1 else "gradient"


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
        width = 2 * len(self.names)
        sums, shared = [0.0] * (width * len(taken)), [0.0] * (3 * len(taken))
        scalars = _Scalars()
        for row, step in enumerate(taken):
            scalars.put(step.norm, shared, 3 * row)
            scalars.put(step.skipped, shared, 3 * row + 1)
            if step.scale is not None:
                scalars.put(step.scale, shared, 3 * row + 2)
            for ratios in step.ratios:
                for column, name in enumerate(self.names):
                    scalars.put(ratios[name].total, sums, width * row + 2 * column)
                    scalars.put(ratios[name].count, sums, width * row + 2 * column + 1)
        scalars.fetch()
        *total, asked = world.sum(torch.tensor([*sums, float(asks)], dtype=torch.float64)).tolist()
        records = [
            Record(step.step, self._ratios(total[width * row :]), norm, skipped > 0, scale)
            for row, step in enumerate(taken)
            for norm, skipped, scale in [shared[3 * row : 3 * row + 3]]
        ]
        return records, bool(asked)

    def _ratios(self, sums: Sequence[float]) -> dict[str, tuple[float, float]]:
        return {name: (sums[2 * i], sums[2 * i + 1]) for i, name in enumerate(self.names)}


class _Scalars:
    """Device scalars and the places on the host to add them to; one transfer a dtype."""

    def __init__(self) -> None:
        self._values: dict[torch.dtype, list[torch.Tensor]] = {}
        self._places: dict[torch.dtype, list[tuple[list[float], int]]] = {}

    def put(self, value: torch.Tensor | int, row: list[float], column: int) -> None:
        if isinstance(value, torch.Tensor):
            self._values.setdefault(value.dtype, []).append(value)
            self._places.setdefault(value.dtype, []).append((row, column))
        else:
            row[column] += value

    def fetch(self) -> None:
        for dtype, values in self._values.items():
            for value, (row, column) in zip(torch.stack(values).tolist(), self._places[dtype], strict=True):
                row[column] += value


def mean(ratios: Sequence[tuple[float, float]]) -> float | None:
    """Sum of the sums over sum of the counts; None where nothing was counted."""
    count = sum(count for _, count in ratios)
    return sum(total for total, _ in ratios) / count if count else None
