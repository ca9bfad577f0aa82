"""Draw samples by weight, with replacement."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ..loading.order import Indices
from ..loading.rng import key
from .per_sample import labels_of, per_sample
from .sampler import Sampled, Sampler

_DRAW = 8  # separates these numbers from other uses of the run's seed
_WHERE = "data.sampler.weights"


class Weighted(Sampler):
    """Each position is an independent draw, a sample's chance being its weight over the sum of all.

    `weights` is "balance", which makes all classes equally frequent by the data set's `labels` or `targets`, or the name
    of an attribute with a weight a sample, or a list of them. An epoch is `samples` draws, by default as many as the data
    set has samples.
    """

    def __init__(self, weights: str | Sequence[float], samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"data.sampler.samples={samples} is no epoch. Type a number of at least 1")
        self._weights = weights
        self._samples = samples
        self._seed = 0
        self._bounds: NDArray[np.float64] = np.empty(0)

    def set_up(self, sampled: Sampled) -> int:
        weights = self._of(sampled)
        for bad, what in ((~np.isfinite(weights), "not finite"), (weights < 0, "negative")):
            if bad.any():
                index = int(bad.argmax())
                raise ConfigError(
                    f"{_WHERE} of sample {index} is {weights[index]:g}, and {int(bad.sum())} in all are {what}. Give each "
                    "sample a number of at least 0"
                )
        if not weights.any():
            raise ConfigError(
                f"{_WHERE} are all 0, so no sample could be drawn. Give those that are wanted more than 0"
            )
        self._seed = sampled.seed
        self._bounds = weights.cumsum() / weights.sum()
        self._bounds[np.flatnonzero(weights)[-1] :] = 1.0  # not a rounding less, nor a sample of weight 0 behind
        return self._samples or sampled.samples

    def indices(self, start: int, stop: int) -> Indices:
        words = key(self._seed, _DRAW, np.arange(start, stop, dtype=np.uint64))
        uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
        return self._bounds.searchsorted(uniform, side="right").astype(np.int64)

    def _of(self, sampled: Sampled) -> NDArray[np.float64]:
        if self._weights != "balance":
            return per_sample(sampled.dataset, self._weights, sampled.samples, _WHERE).astype(np.float64)
        labels = labels_of(sampled.dataset, sampled.samples, f"{_WHERE}=balance")
        _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        weights: NDArray[np.float64] = 1.0 / counts[classes]
        return weights
