"""Positions in, a batch out: the one function behind every way of loading, in this process or in workers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate

from train.data.augment import Augment
from train.data.batch import Batch
from train.data.order import InTurn, Order
from train.data.split import Span
from train.rng import Draws, global_state, integer, restore_globals, seed_globals

_AUGMENT = 2  # tells these seeds from those of other uses of the run's seed
_FETCH = 3


class Source(Dataset[Batch]):
    """Fetches the samples at given positions of the run.

    A dataset with `__getitems__(indices)` is asked once a batch; it answers with a list of samples, or with the batch
    itself, and must be a pure function of the indices. Any other dataset is asked sample by sample, and the global
    generators of Python, NumPy and torch are seeded by the sample's position before each.
    """

    def __init__(self, dataset: Dataset[Any], order: Order | InTurn, augment: Augment | None, seed: int) -> None:
        self._dataset = dataset
        self._order = order
        self._augment = augment
        self._seed = seed

    def __getitems__(self, positions: Span) -> Batch:
        """The batch of the samples at positions.start..positions.stop-1."""
        indices = self._order.indices(*positions)
        batch = fetch(self._dataset, indices, positions.start, self._seed)
        if self._augment is None:
            return batch
        return self._augment(batch, Draws(integer(self._seed, _AUGMENT), np.arange(*positions, dtype=np.int64)))


def fetch(dataset: Dataset[Any], indices: NDArray[np.int64], position: int, seed: int) -> Batch:
    """The batch of the samples `indices`, the first of which stands at `position` of its sequence."""
    if hasattr(dataset, "__getitems__"):
        samples = dataset.__getitems__(indices)
        return default_collate(samples) if isinstance(samples, list) else samples
    before = global_state()
    try:
        return default_collate([_seeded(dataset, int(i), seed, position + k) for k, i in enumerate(indices)])
    finally:
        restore_globals(before)


def _seeded(dataset: Dataset[Any], index: int, seed: int, position: int) -> Any:
    seed_globals(integer(seed, _FETCH, position))
    return dataset[index]
