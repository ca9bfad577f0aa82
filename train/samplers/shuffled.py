"""Every chosen sample once an epoch, or several times, in a random order."""

from collections.abc import Sequence

import numpy as np

from phalanx.exit.codes import ConfigError

from ..loading.order import Indices, Order
from .sampler import Sampled, Sampler


class Subset(Sampler):
    """The samples with these `indices`, shuffled anew each epoch. One that stands there twice comes twice an epoch.

    `indices` is a list, or text such as "0:1000" or "::10", as a slice is written.
    """

    def __init__(self, indices: Sequence[int] | str) -> None:
        self._given = indices
        self._chosen: Indices = np.empty(0, np.int64)

    def set_up(self, sampled: Sampled) -> int:
        samples = sampled.samples
        chosen = np.arange(samples)[_slice(self._given)] if isinstance(self._given, str) else np.asarray(self._given)
        if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
            raise ConfigError("data.sampler.indices chooses no sample. Type a list of whole numbers, or 0:1000")
        outside = (chosen < 0) | (chosen >= samples)
        if outside.any():
            raise ConfigError(
                f"data.sampler.indices has {chosen[outside.argmax()]}, and the data set has the samples 0 to "
                f"{samples - 1}. Leave it out"
            )
        self._chosen = chosen.astype(np.int64)
        self._order = Order(len(chosen), sampled.seed)
        return len(chosen)

    def indices(self, start: int, stop: int) -> Indices:
        return self._chosen[self._order.indices(start, stop)]


_MOST = 10**15  # positions of an epoch


class Repeated(Sampler):
    """Each sample `times` times an epoch, all shuffled together: for a small data set, with chance in its samples."""

    def __init__(self, times: int) -> None:
        if times < 1:
            raise ConfigError(f"data.sampler.times={times} leaves no sample. Type a number of at least 1")
        self._times = times

    def set_up(self, sampled: Sampled) -> int:
        if self._times * sampled.samples > _MOST:
            raise ConfigError(f"data.sampler.times={self._times} of {sampled.samples} samples is more than {_MOST:.0e}")
        self._samples = sampled.samples
        self._order = Order(self._times * sampled.samples, sampled.seed)
        return self._times * sampled.samples

    def indices(self, start: int, stop: int) -> Indices:
        return self._order.indices(start, stop) % self._samples


class Shuffled(Sampler):
    """Every sample once an epoch, in a random order: what is done without a sampler."""

    def set_up(self, sampled: Sampled) -> int:
        self._order = Order(sampled.samples, sampled.seed)
        return sampled.samples

    def indices(self, start: int, stop: int) -> Indices:
        return self._order.indices(start, stop)


def _slice(text: str) -> slice:
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
        if not 2 <= len(parts) <= 3 or parts[2:] == [0]:
            raise ValueError
    except ValueError:
        raise ConfigError(f"data.sampler.indices={text} is no slice. Type a list, or 0:1000") from None
    return slice(*parts)
