"""Random crops and flips of pictures and their masks alike."""

from dataclasses import dataclass

import torch

from phalanx.exit.codes import ConfigError

from ...loading.batch import Augment
from ...loading.rng import Draws


@dataclass(frozen=True)
class CropFlip(Augment):
    """Cut `size` x `size` pixels out of each image (c, h, w) and its mask (h, w), anywhere, and flip both alike.

    They are flipped left to right by an even chance, and with `vertical` upside down by another. Masks of video, labels of
    one number a sample and anything else that is not (b, h, w) are none.
    """

    size: int
    vertical: bool

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size} must be at least 1 pixel")

    def __call__(self, batch: tuple[torch.Tensor, torch.Tensor], draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = batch
        height, width = images.shape[-2:]
        if masks.shape != (len(images), height, width):
            raise ConfigError(
                f"CropFlip changes images and masks of one size, and a batch has {tuple(images.shape)} and "
                f"{tuple(masks.shape)}. Type data.augment=null, or give masks (b, h, w)"
            )
        if self.size > min(height, width):
            raise ConfigError(
                f"data.augment.size={self.size} is more than the images have, {height} x {width} pixels. Type at most "
                f"data.augment.size={min(height, width)}"
            )
        down, right, mirrored, turned = draws.uniform(4).unbind(1)
        rows = _places(down, height, self.size, turned < 0.5 if self.vertical else torch.zeros(len(images)).bool())
        columns = _places(right, width, self.size, mirrored < 0.5)
        sample = torch.arange(len(images))[:, None, None]
        rows, columns = rows[:, :, None], columns[:, None, :]
        return images.movedim(1, -1)[sample, rows, columns].movedim(-1, 1), masks[sample, rows, columns]


def _places(share: torch.Tensor, length: int, size: int, reverse: torch.Tensor) -> torch.Tensor:
    """Which rows are taken, (b, size): consecutive ones from a first that `share` tells, backwards where `reverse`."""
    first = (share * (length - size + 1)).long().clamp(max=length - size)
    steps = torch.arange(size).expand(len(share), size)
    return first[:, None] + torch.where(reverse[:, None], size - 1 - steps, steps)
