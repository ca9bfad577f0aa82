"""Synthetic scenes for detection: handwritten digits in colour, of several sizes and overlapping, on a busy background."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...loading.rng import key
from ..digits import read

Targets = dict[str, torch.Tensor]
_SMALLEST, _LARGEST = 14, 40  # sides of a digit's square before it is cropped to its ink, pixels
_INK = 80  # grey value of 255 from which on a pixel belongs to the digit
_OVERLAP = 0.3  # largest share of the smaller box that two digits have in common
_STROKES = 6  # at most, that are no digits


class DigitScenes(Dataset[tuple[torch.Tensor, Targets]]):
    """`samples` pictures (3, size, size) of floats from 0 to 1, with `boxes` (n, 4), xyxy in pixels, and `labels` (n,).

    Labels are the digit plus one, for 0 is the background of torchvision's detectors. The handwriting is scikit-learn's,
    of its split "train" or "held_out" (see `Digits`); all else is drawn from `seed` and the picture's number: 1 to `most`
    digits of 14 to 40 pixels, their colours, a background of two colours and waves, strokes that are no digits, and noise.
    """

    def __init__(self, split: str, samples: int, size: int, most: int, seed: int) -> None:
        if split not in ("train", "held_out"):
            raise ConfigError(f"The scenes have no split {split!r}. Type split=train or split=held_out")
        if size < _LARGEST or samples < 1 or most < 1:
            raise ConfigError(
                f"Scenes of size={size}, samples={samples}, most={most} cannot be drawn. Sizes are {_LARGEST} pixels or "
                "more, and samples and most at least 1"
            )
        digits, labels, held_out = read()
        chosen = held_out == (split == "held_out")
        self._digits, self._classes = digits[chosen], labels[chosen]
        self._size, self._most = size, most
        self._seed = 2 * seed + (split == "held_out")  # scenes of the two splits differ in all that is drawn
        self.classes = ["background", *map(str, range(10))]
        drawn = [self._draw(i) for i in range(samples)]
        self._images = torch.from_numpy(np.stack([image for image, _, _ in drawn]))
        self._targets: list[Targets] = [{"boxes": boxes, "labels": kinds} for _, boxes, kinds in drawn]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Targets]:
        return self._images[index].float().div_(255), self._targets[index]

    def collate(self, samples: list[tuple[torch.Tensor, Targets]]) -> tuple[list[torch.Tensor], list[Targets]]:
        """Lists of images and of targets, as torchvision's detectors take them."""
        return [image for image, _ in samples], [target for _, target in samples]

    def fingerprint(self) -> str:
        """SHA-256 in hex over pixels, boxes and labels."""
        digest = hashlib.sha256(self._images.numpy().data)
        for target in self._targets:
            digest.update(target["boxes"].numpy().tobytes() + target["labels"].numpy().tobytes())
        return digest.hexdigest()

    def _draw(self, index: int) -> tuple[NDArray[np.uint8], torch.Tensor, torch.Tensor]:
        """Pixels (3, size, size), boxes (n, 4) and labels (n,) of a scene."""
        random = np.random.Generator(np.random.PCG64(int(key(self._seed, index)[0])))
        image = _background(random, self._size)
        boxes, labels = np.zeros((0, 4), np.float32), []
        for _ in range(int(random.integers(1, self._most + 1))):
            which = int(random.integers(len(self._digits)))
            ink = _scaled(self._digits[which], int(random.integers(_SMALLEST, _LARGEST + 1)))
            box = _place(random, ink.shape, self._size, boxes)
            if box is None:
                continue
            left, top, right, bottom = box.astype(int)
            _paint(image[:, top:bottom, left:right], ink, random)
            boxes = np.concatenate([boxes, box[None]])
            labels.append(int(self._classes[which]) + 1)
        image += random.normal(0, 0.04, image.shape).astype(np.float32)
        pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
        return pixels, torch.from_numpy(boxes), torch.tensor(labels, dtype=torch.int64)


def _background(random: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Two dark colours that run into each other along a wave, crossed by strokes; (3, size, size)."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle, waves, phase = random.uniform(0, 2 * np.pi), random.uniform(1, 4), random.uniform(0, 2 * np.pi)
    share = 0.5 + 0.5 * np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    one, two = random.uniform(0, 0.4, (2, 3, 1, 1))
    image: NDArray[np.float32] = (one * share + two * (1 - share)).astype(np.float32)
    for _ in range(int(random.integers(_STROKES + 1))):
        start, angle, length = random.uniform(0, size, 2), random.uniform(0, 2 * np.pi), random.uniform(6, 20)
        steps = start + np.arange(0, length, 0.5)[:, None] * (np.sin(angle), np.cos(angle))
        rows, columns = steps.astype(int).T % size
        image[:, rows, columns] = image[:, (rows + 1) % size, columns] = random.uniform(0.3, 0.9, (3, 1))
    return image


def _scaled(digit: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """The digit at side x side pixels, from 0 to 1, cropped to its ink."""
    square = torch.from_numpy(digit.astype(np.float32))[None, None] / 255
    scaled = F.interpolate(square, size=side, mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy()
    there = scaled > _INK / 255
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    found: NDArray[np.float32] = scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return found


def _place(
    random: np.random.Generator, shape: tuple[int, ...], size: int, taken: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """A box within the picture that overlaps no other by more than `_OVERLAP`; None where none of ten tries fits."""
    height, width = shape
    for _ in range(10):
        left, top = random.integers(0, size - width + 1), random.integers(0, size - height + 1)
        box = np.array([left, top, left + width, top + height], np.float32)
        common = (np.minimum(taken[:, 2:], box[2:]) - np.maximum(taken[:, :2], box[:2])).clip(0).prod(1)
        areas = (taken[:, 2:] - taken[:, :2]).prod(1)
        if (common <= _OVERLAP * np.minimum(areas, height * width)).all():
            return box
    return None


def _paint(region: NDArray[np.float32], ink: NDArray[np.float32], random: np.random.Generator) -> None:
    """Mix a bright colour into the region where there is ink."""
    colour = random.uniform(0.45, 1.0, (3, 1, 1)).astype(np.float32)
    region += ink * (colour - region)
