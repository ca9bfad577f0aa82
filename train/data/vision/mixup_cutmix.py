"""Mixup and CutMix: a sample and a partner from the whole batch become one, and so do their labels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError

from ...loading.batch import Augment
from ...loading.rng import Draws


@dataclass(frozen=True)
class MixupCutmix(Augment):
    """Mixup (Zhang et al. 2018, equation 1) or CutMix (Yun et al. 2019, section 3.1), one or the other by an even chance.

    `mixup` and `cutmix` are the parameter a of Beta(a, a), of which each sample draws its share of itself; 0: not that one.
    Labels (b,) become probabilities (b, classes) of float32. A sample is mixed with any other of the global batch, whatever
    the number of ranks is; that one is read for it once more.
    """

    classes: int
    mixup: float
    cutmix: float

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or not (self.mixup or self.cutmix):
            raise ValueError(f"mixup={self.mixup}, cutmix={self.cutmix}: one is more than 0, and neither is less")

    def __call__(
        self,
        batch: tuple[torch.Tensor, torch.Tensor],
        draws: Draws,
        partners: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (b, c, h, w) and their labels, each mixed with a partner's."""
        assert partners is not None
        (images, labels), (others, their_labels) = batch, partners
        if labels.dim() != 1 or images.dim() != 4 or images.shape[1:] != others.shape[1:]:
            raise ConfigError(
                "MixupCutmix mixes images (b, c, h, w) of one size with a label each, and a batch has "
                f"{tuple(images.shape)} and {tuple(labels.shape)}. Type data.augment=null"
            )
        if int(labels.max()) >= self.classes:
            raise ConfigError(
                f"data.augment.classes={self.classes} admits labels up to {self.classes - 1}, and there is "
                f"{int(labels.max())}. Type the number of classes that the task has"
            )
        chance, down, right, first, second = draws.uniform(5).unbind(1)
        cuts = self._cuts(chance)
        share = self._shares(first, second, cuts)
        height, width = images.shape[-2:]
        inside = _boxes(1 - share, down, right, height, width) & cuts[:, None, None]
        share = torch.where(cuts, 1 - inside.float().mean((1, 2)), share)  # a box may reach over the edge
        mixed = _weighted(images, others, share)
        images = torch.where(cuts[:, None, None, None], torch.where(inside[:, None], others, images), mixed)
        one, other = (F.one_hot(each, self.classes).float() for each in (labels, their_labels))
        return images, _weighted(one, other, share)

    def _cuts(self, chance: torch.Tensor) -> torch.Tensor:
        """Which samples are cut, and not mixed."""
        if not (self.mixup and self.cutmix):
            return torch.full_like(chance, bool(self.cutmix), dtype=torch.bool)
        return chance < 0.5

    def _shares(self, first: torch.Tensor, second: torch.Tensor, cuts: torch.Tensor) -> torch.Tensor:
        """A number of Beta(a, a) for each sample, from a generator that two of its uniform numbers seed."""
        seeds = (first.double() * 2**24).long() << 24 | (second.double() * 2**24).long()
        drawn = [
            np.random.Generator(np.random.Philox(seed)).beta(alpha, alpha)
            for seed, alpha in zip(seeds.tolist(), np.where(cuts, self.cutmix, self.mixup).tolist(), strict=True)
        ]
        return torch.tensor(drawn, dtype=torch.float32)


def _weighted(ours: torch.Tensor, theirs: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    weight = share.view(-1, *[1] * (ours.dim() - 1)).to(ours.dtype)
    return ours * weight + theirs * (1 - weight)


def _boxes(area: torch.Tensor, down: torch.Tensor, right: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Which pixels (b, height, width) lie in a box of this share of the area, around a point at `down`, `right` in 0..1."""
    half = area.sqrt()[:, None] / 2
    rows = ((torch.arange(height) + 0.5) / height - down[:, None]).abs() < half
    columns = ((torch.arange(width) + 0.5) / width - right[:, None]).abs() < half
    return rows[:, :, None] & columns[:, None, :]
