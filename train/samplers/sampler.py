"""The interface of a sampler: which sample stands at which position of the run."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ..loading.order import Indices, Positions


@dataclass(frozen=True)
class Sampled:
    """What a sampler is set up for.

    `batch` is what is put together at once, the micro-batch where train.micro_batch fixes one, else the global batch.
    With `drop_last` each epoch begins a new batch.
    """

    dataset: Dataset[Any]
    samples: int  # of the data set
    seed: int
    batch: int
    drop_last: bool


class Sampler(ABC):
    """Decides which sample stands at which position, a pure function of the run's seed and the position.

    The run is one long sequence of positions, epoch after epoch; step k takes those from k * train.global_batch on. So any
    rank, worker or restart asks for any part of it, and gets the same: nothing may depend on what was asked before.
    It is sent to data workers, and large arrays in it are shared with them.
    """

    @abstractmethod
    def set_up(self, sampled: Sampled) -> int:
        """Called once on each rank before anything else; returns the positions of an epoch.

        Raises ConfigError where the data set does not fit.
        """

    @abstractmethod
    def indices(self, start: int, stop: int) -> Indices:
        """Sample indices at positions start..stop-1, int64, shape (stop - start,)."""


@dataclass(frozen=True)
class InRange:
    """The positions of a sampler, whose indices are those of samples: -1 would be the last one, without a word."""

    sampler: Sampler
    samples: int

    def indices(self, start: int, stop: int) -> Indices:
        found = self.sampler.indices(start, stop)
        if stop > start and not (found.min() >= 0 and found.max() < self.samples):
            raise ConfigError(
                f"data.sampler: {type(self.sampler).__name__}.indices({start}, {stop}) has {found.min()} to {found.max()}, "
                f"and the data set has the samples 0 to {self.samples - 1}"
            )
        return found


def set_up(sampler: Sampler, sampled: Sampled) -> tuple[Positions, int]:
    """The sampler, set up, and the positions of an epoch. Raises ConfigError where its answers cannot be used."""
    kind = type(sampler).__name__
    epoch: object = sampler.set_up(sampled)
    if not isinstance(epoch, int) or epoch < 1:
        raise ConfigError(
            f"data.sampler: {kind}.set_up returned {epoch!r}. Return the positions of an epoch, at least 1"
        )
    few = min(epoch, sampled.batch)
    found: object = sampler.indices(0, few)
    if not isinstance(found, np.ndarray) or found.shape != (few,) or found.dtype != np.int64:
        told = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        raise ConfigError(
            f"data.sampler: {kind}.indices(0, {few}) returned {told}. Return an array of int64 of shape ({few},)"
        )
    order = InRange(sampler, sampled.samples)
    order.indices(0, few)
    return order, epoch
