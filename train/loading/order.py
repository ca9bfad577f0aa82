"""Shuffle: an endless sequence of sample indices, each epoch its own permutation, any part of it in O(1).

The shuffle of a few samples sorts a hash of (seed, epoch, sample). That of many is computed and never stored: a Feistel
network over the smallest power of two that holds them (Luby & Rackoff 1988), walking the cycle while the result is no
sample (Black & Rogaway 2002, "cycle walking"). So neither a billion samples nor a position beyond need a list of a
billion numbers.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .rng import key, mix

_ROUNDS = 8
_BLOCK = 1 << 14  # positions computed at once, so that NumPy's cost a call is spread over many batches; "few" is below
_SHUFFLE = 1  # tells the keys of the order from those of other uses of the seed

Indices = NDArray[np.int64]


class Positions(Protocol):
    """Which sample stands at which position of the run."""

    def indices(self, start: int, stop: int) -> Indices:
        """Sample indices at positions start..stop-1, int64, shape (stop - start,)."""


class SequentialOrder:
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
        self._block = np.empty(0, np.int64)
        self._block_start = 0

    def indices(self, start: int, stop: int) -> Indices:
        """Sample indices at positions start..stop-1, shape (stop - start,); the caller's own to change."""
        if start < self._block_start or stop > self._block_start + len(self._block):
            compute = self._sorted if self._samples <= _BLOCK else self._computed
            self._block_start, self._block = compute(start, max(stop, start + _BLOCK))
        return self._block[start - self._block_start : stop - self._block_start].copy()

    def _sorted(self, start: int, stop: int) -> tuple[int, Indices]:
        """The whole epochs that hold positions start..stop-1, and where they begin."""
        epochs = np.arange(start // self._samples, (stop - 1) // self._samples + 1, dtype=np.uint64)
        words = key(self._seed, _SHUFFLE, epochs[:, None], np.arange(self._samples, dtype=np.uint64))
        return int(epochs[0]) * self._samples, words.argsort(1).ravel()

    def _computed(self, start: int, stop: int) -> tuple[int, Indices]:
        """Positions start..stop-1, and where they begin."""
        epochs, offsets = np.divmod(np.arange(start, stop, dtype=np.uint64), np.uint64(self._samples))
        distinct = np.arange(epochs[0], epochs[-1] + np.uint64(1), dtype=np.uint64)
        keys = key(self._seed, _SHUFFLE, np.arange(_ROUNDS, dtype=np.uint64)[:, None], distinct)
        keys = keys[:, (epochs - epochs[0]).astype(np.int64)]
        found = self._encrypted(offsets, keys)
        outside = np.flatnonzero(found >= self._samples)
        while outside.size:
            found[outside] = self._encrypted(found[outside], keys[:, outside])
            outside = outside[found[outside] >= self._samples]
        return start, found.astype(np.int64)

    def _encrypted(self, words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A permutation of 0..2^bits-1. The halves swap widths each round, so unequal halves work; rounds are even."""
        bits = (self._samples - 1).bit_length()
        right_bits = bits // 2
        left_bits = bits - right_bits
        left, right = words >> np.uint64(right_bits), words & np.uint64((1 << right_bits) - 1)
        for round_keys in keys:
            mask = np.uint64((1 << left_bits) - 1)
            left, right = right, left ^ (mix(right + round_keys) & mask)
            left_bits, right_bits = right_bits, left_bits
        return (left << np.uint64(right_bits)) | right
