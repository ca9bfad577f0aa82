"""Which part of an image a sample is, and at which size: planned from height and width alone, before it is decoded."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

_TRIES = 10  # boxes drawn before the largest one in the middle is taken


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Plan(NamedTuple):
    """Cut `box` out, scale it to `size` (height, width), and cut `within` out of that; `flip`: mirror it."""

    box: Box
    size: tuple[int, int]
    within: Box | None
    flip: bool

    def factor(self) -> int:
        """How much smaller the image may be decoded, so that nothing is enlarged that would have been shrunk."""
        return max(1, min(self.box.height // self.size[0], self.box.width // self.size[1]))

    def apply(self, image: torch.Tensor, full: tuple[int, int] | None = None) -> torch.Tensor:
        """The sample (3, h, w) of uint8, of an image that may have been decoded smaller than its `full` height and width.

        Bilinear with antialiasing, as torchvision scales.
        """
        from torchvision.transforms.v2 import functional

        box = self.box if full is None else _scaled(self.box, full, image.shape)
        part: torch.Tensor = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
        part = functional.resize(part, list(self.size), antialias=True)
        if self.within is not None:
            top, left, height, width = self.within
            part = part[:, top : top + height, left : left + width]
        return part.flip(-1) if self.flip else part


class Crop(nn.Module, ABC):
    """Makes samples of `size` x `size` pixels from images of any size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"A crop of size={size} has no pixel. Set it to at least 1")
        self.size = size

    @abstractmethod
    def plan(self, height: int, width: int) -> Plan:
        """What becomes of an image of this height and width. Draws from torch's global generator."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Of an image (3, h, w) the sample (3, size, size)."""
        return self.plan(image.shape[1], image.shape[2]).apply(image)


class RandomCrop(Crop):
    """A part of random area and shape, scaled to `size` x `size`, mirrored half the time: Szegedy et al. 2015, section 6.

    The part has `scale` of the image's area and sides in `ratio` (width to height); `flip` is how often it is mirrored.
    Numbers are drawn as torchvision's RandomResizedCrop and RandomHorizontalFlip do: equal seeds give equal samples.
    """

    def __init__(self, size: int, scale: Sequence[float], ratio: Sequence[float], flip: float) -> None:
        super().__init__(size)
        for name, (low, high), most in (
            ("scale", _pair("scale", scale), 1.0),
            ("ratio", _pair("ratio", ratio), math.inf),
        ):
            if not 0 < low <= high <= most:
                raise ConfigError(
                    f"{name}={[low, high]} is no range of shares. Set it to two numbers, such as [0.5, 1.0]"
                )
        if not 0 <= flip <= 1:
            raise ConfigError(f"flip={flip} is how often images are mirrored. Set it to a number from 0 to 1")
        self._scale, self._ratio, self._flip = _pair("scale", scale), _pair("ratio", ratio), flip
        self._log_ratio = [math.log(self._ratio[0]), math.log(self._ratio[1])]

    def plan(self, height: int, width: int) -> Plan:
        box = self._box(height, width)
        return Plan(box, (self.size, self.size), None, bool(torch.rand(1) < self._flip))

    def _box(self, height: int, width: int) -> Box:
        for _ in range(_TRIES):
            area = height * width * float(torch.empty(1).uniform_(*self._scale))
            shape = math.exp(float(torch.empty(1).uniform_(*self._log_ratio)))
            w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < w <= width and 0 < h <= height:
                top = int(torch.randint(0, height - h + 1, (1,)))
                return Box(top, int(torch.randint(0, width - w + 1, (1,))), h, w)
        low, high = self._ratio
        w = min(width, round(height * high))
        h = min(height, round(width / low))
        if low <= width / height <= high:
            w, h = width, height
        return Box((height - h) // 2, (width - w) // 2, h, w)


class CenterCrop(Crop):
    """The shorter side is scaled to `resize` pixels, and the middle of `size` x `size` is cut out: the usual evaluation."""

    def __init__(self, size: int, resize: int) -> None:
        super().__init__(size)
        if resize < size:
            raise ConfigError(
                f"resize={resize} leaves less than size={size} of an image. Set resize to at least {size}"
            )
        self.resize = resize

    def plan(self, height: int, width: int) -> Plan:
        return middle(height, width, (self.size, self.size), self.resize)


def middle(height: int, width: int, size: tuple[int, int], resize: int) -> Plan:
    """The shorter side scaled to `resize`, and of that the middle of `size` (height, width)."""
    # As torchvision's Resize: the longer side is truncated.
    scaled = (int(resize * height / width), resize) if width <= height else (resize, int(resize * width / height))
    top, left = (round((side - wanted) / 2.0) for side, wanted in zip(scaled, size, strict=True))
    return Plan(Box(0, 0, height, width), scaled, Box(top, left, *size), False)


def _pair(name: str, values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ConfigError(f"{name}={list(values)} is a range of two numbers. Set it to two, such as [0.5, 1.0]")
    return float(values[0]), float(values[1])


def _scaled(box: Box, full: tuple[int, int], found: Sequence[int]) -> Box:
    """The box in an image of (3, h, w) that was decoded smaller: rounded to its pixels, one of them at least."""
    down, across = found[1] / full[0], found[2] / full[1]
    top, left = min(round(box.top * down), found[1] - 1), min(round(box.left * across), found[2] - 1)
    height = max(1, min(round(box.height * down), found[1] - top))
    return Box(top, left, height, max(1, min(round(box.width * across), found[2] - left)))
