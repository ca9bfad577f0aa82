"""Which sample comes when: an endless sequence of positions, each epoch its own shuffle, any part of it in O(1).

Epoch e is a permutation of 0..n-1 drawn from (seed, e): a Feistel network over the smallest power of two that holds n
(Luby & Rackoff 1988), walking the cycle while the result is not below n (Black & Rogaway 2002, "cycle walking"). Neither
the order of a billion samples nor the billionth position needs a list: a position is computed, not looked up.
"""

import numpy as np
from numpy.typing import NDArray

from train.rng import key, mix

_ROUNDS = 8
_BLOCK = 1 << 14  # positions computed at once: NumPy's cost a call is spread over many batches
_SHUFFLE = 1  # tells the keys of the order from those of other uses of the seed

Indices = NDArray[np.int64]


class InTurn:
    """Every sample in turn, as an evaluation takes them."""

    def indices(self, start: int, stop: int) -> Indices:
        return np.arange(start, stop, dtype=np.int64)


class Order:
    """The order of `samples` samples under `seed`."""

    def __init__(self, samples: int, seed: int) -> None:
        if samples < 1:
            raise ValueError(f"an order of {samples} samples has no first one")
        self._samples = samples
        self._seed = seed
        bits = max(8, (samples - 1).bit_length())  # a tiny network would mix too little
        self._low = bits // 2
        self._high = bits - self._low
        self._block = np.empty(0, np.int64)
        self._block_start = 0

    def indices(self, start: int, stop: int) -> Indices:
        """Sample indices at positions start..stop-1, shape (stop - start,)."""
        first, last = start - self._block_start, stop - self._block_start
        if first < 0 or last > len(self._block):
            self._block = self.at(np.arange(start, max(stop, start + _BLOCK), dtype=np.int64))
            self._block_start, first, last = start, 0, stop - start
        return self._block[first:last]

    def at(self, positions: Indices) -> Indices:
        """Sample indices at any positions, same shape."""
        epochs, offsets = np.divmod(positions, self._samples)
        distinct, where = np.unique(epochs, return_inverse=True)
        keys = np.stack([key(self._seed, _SHUFFLE, distinct.astype(np.uint64), r) for r in range(_ROUNDS)])[:, where]
        found = self._encrypt(offsets.astype(np.uint64), keys)
        outside = np.flatnonzero(found >= self._samples)
        while outside.size:
            found[outside] = self._encrypt(found[outside], keys[:, outside])
            outside = outside[found[outside] >= self._samples]
        return found.astype(np.int64)

    def _encrypt(self, words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A permutation of 0..2^bits-1. The halves swap widths each round, so unequal halves work; rounds are even."""
        left_bits, right_bits = self._high, self._low
        left, right = words >> np.uint64(right_bits), words & np.uint64((1 << right_bits) - 1)
        for round_keys in keys:
            mask = np.uint64((1 << left_bits) - 1)
            left, right = right, left ^ (mix(right + round_keys) & mask)
            left_bits, right_bits = right_bits, left_bits
        return (left << np.uint64(right_bits)) | right
