"""Batches of samples of similar lengths, so that little of them is padding."""

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ..loading.order import Indices, Order
from ..loading.rng import key
from .per_sample import Given, per_sample
from .sampler import Sampled, Sampler

_PIECES = 9  # separates these numbers from other uses of the run's seed


class Buckets(Sampler):
    """Every sample once an epoch, in batches of similar lengths, which come in random order.

    An epoch is shuffled and cut into pools of `pool` batches. The samples of a pool are sorted by length, cut into batches
    again, and the batches shuffled, and the samples within each. So a batch depends on its pool alone, whatever the number
    of ranks. A larger pool gives batches of more similar lengths, and in a less random order.

    `length` is the name of an attribute or column with a number a sample, a list of them, or a function of a sample, such
    as `{_target_: mypkg.length, _partial_: true}`, for which each rank reads every sample once before training.
    """

    def __init__(self, length: Given, pool: int = 50) -> None:
        if pool < 1:
            raise ConfigError(f"data.sampler.pool={pool} holds no batch. Type a number of at least 1")
        self._length = length
        self._pool = pool
        self._sampled = (0, 0, 0, False)  # samples, seed, batch, drop_last
        self._lengths: NDArray[np.float64] = np.empty(0)
        self._known: tuple[int, Indices] = (
            0,
            np.empty(0, np.int64),
        )  # where the pool used last begins, and its indices

    def set_up(self, sampled: Sampled) -> int:
        numbers = per_sample(sampled.dataset, self._length, sampled.samples, "data.sampler.length")
        self._lengths = numbers.astype(np.float64)
        self._sampled = sampled.samples, sampled.seed, sampled.batch, sampled.drop_last
        self._order = Order(sampled.samples, sampled.seed)
        return sampled.samples

    def indices(self, start: int, stop: int) -> Indices:
        found = []
        while start < stop:
            first, pool = self._pool_at(start)
            part = pool[start - first : stop - first]
            found.append(part)
            start += len(part)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _pool_at(self, position: int) -> tuple[int, Indices]:
        """The first position of the pool that holds `position`, and the samples at its positions."""
        first, pool = self._known
        if not first <= position < first + len(pool):
            self._known = first, pool = self._made(*self._bounds(position))
        return first, pool

    def _bounds(self, position: int) -> tuple[int, int]:
        """A pool ends where an epoch does. Else its ends are those of batches, counted from the run's start or, where each
        epoch begins a new batch, from the epoch's."""
        samples, _, batch, drop_last = self._sampled
        begin = position // samples * samples
        origin, width = begin if drop_last else 0, batch * self._pool
        start = origin + (position - origin) // width * width
        return max(start, begin), min(start + width, begin + samples)

    def _made(self, start: int, stop: int) -> tuple[int, Indices]:
        """The samples of a pool in the order in which they are taken, cut at the ends of batches."""
        samples, seed, batch, drop_last = self._sampled
        origin = start // samples * samples if drop_last else 0
        cuts = np.arange(origin + -(-(start - origin) // batch) * batch, stop, batch)
        ends = np.unique(np.concatenate([[start], cuts, [stop]]))
        sizes = np.diff(ends)
        shuffled = self._order.indices(start, stop)
        by_length = shuffled[self._lengths[shuffled].argsort(kind="stable")]
        turns = key(seed, _PIECES, 0, ends[:-1].astype(np.uint64)).argsort(
            kind="stable"
        )  # piece after piece along lengths
        firsts = np.empty(len(sizes), np.int64)
        firsts[turns] = np.concatenate([[0], sizes[turns].cumsum()[:-1]])
        within = key(seed, _PIECES, 1, np.arange(start, stop, dtype=np.uint64))
        pieces = [
            by_length[first : first + size][within[end - start : end - start + size].argsort(kind="stable")]
            for first, size, end in zip(firsts, sizes, ends[:-1], strict=True)
        ]
        return start, np.concatenate(pieces)
