"""SpecAugment: bands and stretches of time that a recogniser has to do without."""

from dataclasses import dataclass
from typing import Any

import torch

from ...loading.batch import Augment
from ...loading.rng import Draws


@dataclass(frozen=True)
class SpecAugment(Augment):
    """Zeros in `band_masks` bands and `time_masks` stretches of each clip's `features` (Park et al. 2019, section 2).

    Each band is 0 to `bands` mels wide, each stretch 0 to `frames` frames, and at most `share` of the clip, long; both
    uniformly, anywhere. Zero is the mean of normalized features.
    """

    band_masks: int = 2
    bands: int = 8
    time_masks: int = 2
    frames: int = 20
    share: float = 0.2

    def __post_init__(self) -> None:
        if min(self.band_masks, self.bands, self.time_masks, self.frames) < 0 or not 0 <= self.share <= 1:
            raise ValueError("masks and their widths must not be negative, and share lies within 0 and 1")

    def __call__(self, batch: dict[str, Any], draws: Draws) -> dict[str, Any]:
        features, lengths = batch["features"], batch["lengths"]
        mels = torch.full_like(lengths, features.shape[2])
        kept = torch.ones_like(features, dtype=torch.bool)
        for _ in range(self.band_masks):
            kept &= ~_stretch(draws, features.shape[2], mels, torch.full_like(mels, self.bands))[:, None, :]
        widest = (lengths * self.share).long().clamp(max=self.frames)
        for _ in range(self.time_masks):
            kept &= ~_stretch(draws, features.shape[1], lengths, widest)[:, :, None]
        return {**batch, "features": features * kept}


def _stretch(draws: Draws, size: int, lengths: torch.Tensor, widest: torch.Tensor) -> torch.Tensor:
    """A random stretch a sample, of 0 to `widest` (b,) within its first `lengths` (b,): (b, size), bool."""
    width, start = draws.uniform(2).to(lengths.device).unbind(1)
    width = (width * (widest + 1)).long().clamp(max=lengths)
    first = (start * (lengths - width + 1)).long()
    places = torch.arange(size, device=lengths.device)
    return (places >= first[:, None]) & (places < (first + width)[:, None])
