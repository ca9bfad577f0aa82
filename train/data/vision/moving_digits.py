"""Synthetic clips for video classification: a handwritten digit that drifts. The class is its motion, not the digit."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...loading.rng import key, mix
from ..digits import read

DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
SPEEDS = {"slow": (0.75, 1.25), "fast": (2.0, 3.0)}  # pixels a frame
_SIDE = 14  # pixels of a digit's square
_MEAN, _STD = 0.08, 0.19  # of the pixels of all clips, from 0 to 1
_NOISE = 0.08  # standard deviation of what each frame has by itself
_ANGLE = np.pi / 24  # a clip's direction is off its class's by so much at most
_NUMBERS = 6  # that decide a clip


class MovingDigits(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """`samples` clips (channels, frames, size, size) of a digit that drifts over a torus, and their classes (b,).

    There are 16 classes: 8 directions, each slow (0.75 to 1.25 pixels a frame) or fast (2 to 3). What leaves at one edge
    comes back at the opposite one, so that each frame of each class has the digit anywhere with equal chance: a single
    frame tells nothing of the class, and the first and the last together tell little of the way between them. The
    handwriting is scikit-learn's, of its split "train" or "held_out" (see `Digits`); all else is drawn from `seed` and the
    clip's number. Brightness changes from frame to frame, and each has noise of its own.
    """

    def __init__(self, split: str, samples: int, frames: int, size: int, channels: int, seed: int) -> None:
        if split not in ("train", "held_out"):
            raise ConfigError(f"The clips have no split {split!r}. Type split=train or split=held_out")
        digits, _, held_out = read()
        chosen = digits[held_out == (split == "held_out")]
        self._digits = chosen.reshape(-1, _SIDE, 2, _SIDE, 2).mean((2, 4)).astype(np.float32) / 255
        if size < _SIDE or frames < 2 or samples < 1 or channels < 1:
            raise ConfigError(
                f"Clips of size={size}, frames={frames}, samples={samples}, channels={channels} cannot be drawn. A digit "
                f"has {_SIDE} pixels a side, a motion 2 frames or more"
            )
        self._frames, self._size, self._channels = frames, size, channels
        self._words = key(2 * seed + (split == "held_out"), np.arange(samples, dtype=np.uint64))  # a word a clip
        self.labels = torch.arange(samples) % len(self.classes)

    @property
    def classes(self) -> list[str]:
        return [f"{direction}, {speed}" for direction in DIRECTIONS for speed in SPEEDS]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        clips, labels = self.__getitems__(np.array([index]))
        return clips[0], labels[0]

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        labels = self.labels[torch.as_tensor(indices)]
        which, speed, angle, top, left, flicker = _uniform(self._words[indices], _NUMBERS).T
        slowest, fastest = np.array(list(SPEEDS.values()))[labels % len(SPEEDS)].T
        angle = (labels.numpy() // len(SPEEDS)) * np.pi / 4 + (2 * angle - 1) * _ANGLE
        pixels = slowest + speed * (fastest - slowest)
        time = np.arange(self._frames)
        down = top[:, None] * self._size + (pixels * np.sin(angle))[:, None] * time
        right = left[:, None] * self._size + (pixels * np.cos(angle))[:, None] * time
        canvas = np.zeros((len(indices), self._size, self._size), np.float32)
        canvas[:, :_SIDE, :_SIDE] = self._digits[(which * len(self._digits)).astype(int)]
        clips = _shifted(canvas, down, right)
        clips *= 0.75 + 0.25 * np.sin(2 * np.pi * (flicker[:, None] + 0.37 * time))[..., None, None]
        clips += _NOISE * self._noise(indices)
        found = torch.from_numpy((clips - _MEAN).astype(np.float32) / np.float32(_STD))
        return found[:, None].expand(-1, self._channels, -1, -1, -1).contiguous(), labels

    def fingerprint(self) -> str:
        """SHA-256 in hex over the digits and what decides the clips."""
        digest = hashlib.sha256(self._digits.tobytes())
        digest.update(self._words.tobytes())
        digest.update(repr((self._frames, self._size, self._channels)).encode())
        return digest.hexdigest()

    def _noise(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Numbers of mean 0 and deviation 1, (b, frames, size, size): sums of two uniform ones."""
        count = self._frames * self._size**2
        words = mix(
            mix(self._words[indices])[:, None] + np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )
        halves = (words & np.uint64(0xFFFFFFFF)) + (words >> np.uint64(32))
        found = (halves.astype(np.float32) * np.float32(2.0**-32) - 1) * np.float32(6**0.5)
        return found.reshape(len(indices), self._frames, self._size, self._size)


def _uniform(words: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """Numbers from 0 up to 1, (b, count)."""
    found = (key(1, words[:, None], np.arange(count, dtype=np.uint64)) >> np.uint64(11)) * 2.0**-53
    return found.astype(np.float64)


def _shifted(canvas: NDArray[np.float32], down: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float32]:
    """The canvases (b, size, size) moved round the torus by pixels (b, frames), bilinear; (b, frames, size, size)."""
    size = canvas.shape[-1]
    rows, lower = _taps(down, size)
    columns, later = _taps(right, size)
    clip = np.arange(len(canvas))[:, None, None]
    above = canvas[clip, rows] * (1 - lower) + canvas[clip, rows - 1] * lower  # (b, frames, size, size)
    frame = np.arange(down.shape[1])[None, :, None]
    across = above.swapaxes(2, 3)
    found = across[clip, frame, columns] * (1 - later) + across[clip, frame, columns - 1] * later
    return found.swapaxes(2, 3).astype(np.float32)


def _taps(shift: NDArray[np.float64], size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which row comes to each place, (b, frames, size), and the share of the one before it, (b, frames, 1, 1)."""
    whole = np.floor(shift).astype(np.int64)
    share = (shift - whole).astype(np.float32)[..., None, None]
    return (np.arange(size) - whole[..., None]) % size, share
