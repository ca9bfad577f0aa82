"""Random changes of training batches, seeded by each sample's position."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..loading.batch import Augment
from ..loading.rng import Draws


@dataclass(frozen=True)
class ShiftRotate(Augment):
    """Shift images by up to `shift` pixels along each axis and rotate them by up to `rotate` degrees, uniformly."""

    shift: float
    rotate: float

    def __post_init__(self) -> None:
        if self.shift < 0 or not 0 <= self.rotate <= 180:
            raise ValueError(
                f"shift={self.shift} must not be negative, rotate={self.rotate} lies within 0 and 180 degrees"
            )

    def __call__(self, batch: tuple[torch.Tensor, torch.Tensor], draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Changed images (b, c, h, w) and the labels as they are; outside an image is the value of its first pixel."""
        images, labels = batch
        height, width = images.shape[-2:]
        angle, right, down = draws.uniform(3, -1, 1).unbind(1)
        cos, sin = (angle * math.radians(self.rotate)).cos(), (angle * math.radians(self.rotate)).sin()
        # Rows of the inverse map in units of half an image, where a pixel's step is 2 / size.
        across = torch.stack([cos, -sin * height / width, right * self.shift * 2 / width], 1)
        along = torch.stack([sin * width / height, cos, down * self.shift * 2 / height], 1)
        grid = F.affine_grid(torch.stack([across, along], 1), list(images.shape), align_corners=False)
        outside = images[:, :, :1, :1]
        return F.grid_sample(images - outside, grid.to(images), align_corners=False) + outside, labels
