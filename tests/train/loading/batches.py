"""Comparing batches and the work of loaders."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.data import Dataset

from phalanx.train.loading.batch import Augment
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.loader import Fetcher, Loader, StepBatch, Timeline
from phalanx.train.loading.order import Order


def source(dataset: Dataset[Any], augment: Augment | None = None, seed: int = 5) -> PositionDataset:
    return PositionDataset(dataset, Order(len(dataset), seed), augment, seed)  # type: ignore[arg-type]


def loader(
    dataset: Dataset[Any],
    timeline: Timeline,
    *,
    micro_batch: int | None = None,
    rank: int = 0,
    size: int = 1,
    workers: int = 0,
) -> Loader:
    samples = len(dataset)  # type: ignore[arg-type]
    return Loader(Fetcher(source(dataset), workers, 2, False), timeline, micro_batch, rank, size, samples)


def flat(batch: Any) -> list[Any]:
    """The batch as plain numbers, which compare by value."""
    if isinstance(batch, torch.Tensor):
        return [str(batch.dtype), list(batch.shape), batch.flatten().tolist()]
    if isinstance(batch, dict):
        return [[key, flat(value)] for key, value in batch.items()]
    return [flat(value) for value in batch]


def told(works: Iterable[StepBatch]) -> list[Any]:
    """Everything that works hold, as plain numbers."""
    return [
        [work.step, work.samples, [[position, flat(batch)] for position, batch in work.micro_batches]] for work in works
    ]
