"""Metrics of the steps since the last fetch, kept as device scalars and fetched with one transfer and one reduction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch

from ...checkpoint.progress import StepRecord
from ...distributed.world import World
from ..step import StepResult

_CHUNK_STEPS = 256  # steps


@dataclass
class MetricWindow:
    """`names` are the metrics known so far, the same on every rank; a batch may lack some, and may bring others."""

    names: list[str]
    _results: list[StepResult] = field(default_factory=list)
    _chunks: list["_Chunk"] = field(default_factory=list)

    def add(self, result: StepResult) -> None:
        self._results.append(result)
        if len(self._results) == _CHUNK_STEPS:
            self._chunks.append(_Chunk(self._results))
            self._results = []

    def fetch(self, world: World, asks: bool = False) -> tuple[list[StepRecord], bool]:
        """The records of all steps since the last call, in order, and whether any rank `asks`.

        All ranks call it, after the same step. It is the only device synchronisation, and the only collective beside the
        gradients', so `asks` is reduced with it.
        """
        chunks = [*self._chunks, _Chunk(self._results)]
        self._chunks, self._results = [], []
        for chunk in chunks:
            chunk.scalars.fetch()
        steps = [step for chunk in chunks for step in chunk.steps]
        sums = [of_step for chunk in chunks for of_step in chunk.sums]
        shared = [number for chunk in chunks for number in chunk.shared]
        names = list(dict.fromkeys(chain(self.names, *sums)))
        news = names[len(self.names) :]
        told = [*_columns(sums, self.names), float(asks), float(bool(news))]
        # All ranks take part.
        *total, asked, more = world.sum(torch.tensor(told, dtype=torch.float64)).tolist()
        ratios = [_ratios(self.names, row) for row in _rows(total, len(steps), 2 * len(self.names))]
        if more:
            # All ranks take part in both: they all read that one has a metric that is not in `names` yet.
            news = list(dict.fromkeys(chain(*world.gather(news))))
            total = world.sum(torch.tensor(_columns(sums, news), dtype=torch.float64)).tolist()
            ratios = [
                {**known, **_ratios(news, row)}
                for known, row in zip(ratios, _rows(total, len(steps), 2 * len(news)), strict=True)
            ]
            self.names = [*self.names, *news]
        records = [
            StepRecord(step, of_step, norm, skipped > 0, scale)
            for step, of_step, (norm, skipped, scale) in zip(steps, ratios, _rows(shared, len(steps), 3), strict=True)
        ]
        return records, bool(asked)


class _Chunk:
    """Steps whose device scalars lie in one tensor a kind: some bytes each, where a tensor of its own takes kilobytes.

    After `scalars.fetch` `sums` has this rank's sum and count by step and name, `shared` norm, skip and scale of each step.
    """

    def __init__(self, results: Sequence[StepResult]) -> None:
        self.steps = [step.step for step in results]
        self.sums: list[dict[str, list[float]]] = [{} for _ in results]
        self.shared = [0.0] * (3 * len(results))
        self.scalars = _Scalars()
        for row, step in enumerate(results):
            self.scalars.put(step.norm, self.shared, 3 * row)
            self.scalars.put(step.skipped, self.shared, 3 * row + 1)
            if step.scale is not None:
                self.scalars.put(step.scale, self.shared, 3 * row + 2)
            for ratios in step.ratios:
                for name, ratio in ratios.items():
                    pair = self.sums[row].setdefault(name, [0.0, 0.0])
                    self.scalars.put(ratio.total, pair, 0)
                    self.scalars.put(ratio.count, pair, 1)
        self.scalars.stack()


def _columns(sums: Sequence[dict[str, list[float]]], names: Sequence[str]) -> list[float]:
    """Step after step, name after name; nothing where this rank has not met one."""
    return [number for of_step in sums for name in names for number in of_step.get(name, (0.0, 0.0))]


def _rows(numbers: Sequence[float], rows: int, width: int) -> list[Sequence[float]]:
    return [numbers[width * row : width * (row + 1)] for row in range(rows)]


def _ratios(names: Sequence[str], sums: Sequence[float]) -> dict[str, tuple[float, float]]:
    return {name: (sums[2 * i], sums[2 * i + 1]) for i, name in enumerate(names)}


class _Scalars:
    """Device scalars and the places on the host to add them to; one transfer a dtype and device."""

    def __init__(self) -> None:
        self._values: dict[object, list[torch.Tensor]] = {}
        self._places: dict[object, list[tuple[list[float], int]]] = {}
        self._stacked: dict[object, torch.Tensor] = {}

    def put(self, value: torch.Tensor | int, row: list[float], column: int) -> None:
        if isinstance(value, torch.Tensor):
            kind = (value.dtype, value.device)
            self._values.setdefault(kind, []).append(value)
            self._places.setdefault(kind, []).append((row, column))
        else:
            row[column] += value

    def stack(self) -> None:
        """After the last `put`. Waits for no device."""
        self._stacked = {kind: torch.stack(values) for kind, values in self._values.items()}
        self._values = {}

    def fetch(self) -> None:
        for kind, values in self._stacked.items():
            for value, (row, column) in zip(values.tolist(), self._places[kind], strict=True):
                row[column] += value


def mean(ratios: Sequence[tuple[float, float]]) -> float | None:
    """Sum of the sums over sum of the counts; None where nothing was counted."""
    count = sum(count for _, count in ratios)
    return sum(total for total, _ in ratios) / count if count else None
