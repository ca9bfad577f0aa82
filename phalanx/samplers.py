"""Samplers, by the names that configs use: `data.sampler._target_=phalanx.samplers.Weighted`.

`Sampler` and `Sampled` are what a sampler of your own is written with.
"""

from typing import TYPE_CHECKING

from .common.lazy import handed_on

__all__ = ["Buckets", "Repeated", "Sampled", "Sampler", "Subset", "Weighted"]

if TYPE_CHECKING:
    from .train.samplers.buckets import Buckets
    from .train.samplers.sampler import Sampled, Sampler
    from .train.samplers.shuffled import Repeated, Subset
    from .train.samplers.weighted import Weighted
else:
    __getattr__, __dir__ = handed_on(
        __package__,
        __name__,
        {
            "train.samplers.buckets": ["Buckets"],
            "train.samplers.sampler": ["Sampled", "Sampler"],
            "train.samplers.shuffled": ["Repeated", "Subset"],
            "train.samplers.weighted": ["Weighted"],
        },
    )
