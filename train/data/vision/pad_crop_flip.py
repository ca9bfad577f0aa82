"""The usual augmentation of small images: shifted by a few pixels, and mirrored."""

from dataclasses import dataclass

import torch

from ...loading.batch import Augment
from ...loading.rng import Draws


@dataclass(frozen=True)
class PadCropFlip(Augment):
    """Images padded by `pad` pixels, cropped to their size at random, mirrored half the time: He et al. 2016, section 4.2.

    What is padded is a reflection. With `vertical` they are turned upside down half the time, too.
    """

    pad: int
    vertical: bool

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad={self.pad} must not be negative")

    def __call__(self, batch: tuple[torch.Tensor, torch.Tensor], draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Changed images (b, c, h, w), in the memory order that they had, and the labels as they are."""
        images, labels = batch
        down, right, mirrored, turned = draws.uniform(4).unbind(1)
        rows = self._places(down, images.shape[2], (turned < 0.5) & self.vertical)
        columns = self._places(right, images.shape[3], mirrored < 0.5)
        sample = torch.arange(len(images))[:, None, None]
        last = images.permute(0, 2, 3, 1)  # a view where channels are last in memory
        return last[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2), labels

    def _places(self, share: torch.Tensor, length: int, reverse: torch.Tensor) -> torch.Tensor:
        """Which row comes to each place, (b, length)."""
        shift = (share * (2 * self.pad + 1)).long().clamp(max=2 * self.pad) - self.pad
        places = torch.arange(length) + shift[:, None]
        places = torch.where(reverse[:, None], length - 1 - places, places).abs()
        return torch.where(places < length, places, 2 * (length - 1) - places)
