"""Token sequences of any lengths, and batches of them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


class Sequences:
    """Token sequences of any lengths, in one array: one indexing operation a batch."""

    def __init__(self, sequences: Sequence[NDArray[np.int32]], longest: int) -> None:
        """Of each the first `longest` tokens."""
        cut = [sequence[:longest] for sequence in sequences]
        self.lengths = np.array([len(sequence) for sequence in cut], np.int64)
        self._starts = np.concatenate([[0], self.lengths.cumsum()])
        self._flat = np.concatenate([*cut, np.empty(0, np.int32)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> torch.Tensor:
        start = self._starts[index]
        return torch.from_numpy(self._flat[start : start + self.lengths[index]].astype(np.int64))

    def padded(self, indices: Sequence[int] | NDArray[np.int64], padding: int) -> torch.Tensor:
        """The sequences (b, t) of int64, filled up at their ends to the longest of them, to one at least."""
        where = np.asarray(indices, np.int64)
        lengths = self.lengths[where]
        steps = np.arange(max(1, int(lengths.max(initial=0))))
        there = steps < lengths[:, None]
        places = np.where(there, self._starts[where][:, None] + steps, 0)
        found = self._flat[places] if len(self._flat) else np.zeros(places.shape, np.int32)
        return torch.from_numpy(np.where(there, found, padding).astype(np.int64))
