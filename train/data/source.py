"""Positions in, a batch out: the one function behind every way of loading, in this process or in workers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset, default_collate

from train.data.augment import Augment
from train.data.batch import Batch, apply
from train.data.order import InTurn, Order
from train.data.split import Span
from train.rng import Draws, integer, seed_all

_AUGMENT = 2  # tells these seeds from those of other uses of the run's seed
_FETCH = 3
_CPU = torch.device("cpu")


class Source(Dataset[Batch]):
    """Fetches the samples at given positions of the run.

    A dataset with `__getitems__(indices)` is asked once a batch, with an array of int64. It answers with a list of
    samples or with the batch itself, of tensors or NumPy arrays. Any other dataset is asked sample by sample. Python's,
    NumPy's and torch's global generators are seeded before each question by the position of its first sample.
    """

    def __init__(self, dataset: Dataset[Any], order: Order | InTurn, augment: Augment | None, seed: int) -> None:
        self._dataset = dataset
        self._order = order
        self._augment = augment
        self._seed = seed
        self._by_batch = _by_batch(dataset)

    def __getitems__(self, positions: Span) -> Batch:
        """The batch of the samples at positions.start..positions.stop-1."""
        indices = self._order.indices(*positions)
        batch = self._batch(indices, positions.start) if self._by_batch else self._collected(indices, positions.start)
        if self._augment is None:
            return batch
        return self._augment(batch, Draws(integer(self._seed, _AUGMENT), np.arange(*positions, dtype=np.int64)))

    def _batch(self, indices: NDArray[np.int64], position: int) -> Batch:
        seed_all(integer(self._seed, _FETCH, position), _CPU)
        found = self._dataset.__getitems__(indices)  # type: ignore[attr-defined]
        if not isinstance(found, list):
            return apply(found, lambda tensor: tensor)
        if len(found) != len(indices):
            kind = type(self._dataset).__name__
            raise ValueError(
                f"{kind}.__getitems__ answered {len(indices)} indices with a list of {len(found)}. A list holds one "
                "sample an index; a batch that is put together already is a tuple, a dict or a tensor"
            )
        return default_collate(found)

    def _collected(self, indices: NDArray[np.int64], position: int) -> Batch:
        samples = []
        for place, index in enumerate(indices.tolist(), position):
            seed_all(integer(self._seed, _FETCH, place), _CPU)
            samples.append(self._dataset[index])
        return default_collate(samples)


def _by_batch(dataset: Dataset[Any]) -> bool:
    """Whether `dataset` fetches whole batches. A Subset of one that does not only loops over its samples."""
    if isinstance(dataset, Subset):
        return _by_batch(dataset.dataset)
    return hasattr(dataset, "__getitems__")
