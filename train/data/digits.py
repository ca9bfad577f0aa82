"""scikit-learn's handwritten digits: 1,797 images that come with the package, read without importing it."""

import functools
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ..loading.rng import key
from .images import Images

_PIXELS = 28
_MEAN, _STD = 0.3053, 0.3247  # of all 1,797 images at 28x28, in units of 0..1


class Digits(Images):
    """One `split`, "train" (1,438) or "held_out" (359: a fifth of each class, always the same), at 28x28 pixels."""

    classes = tuple("0123456789")

    def __init__(self, split: str) -> None:
        if split not in ("train", "held_out"):
            raise ConfigError(f"The digits have no split {split!r}. Type split=train or split=held_out")
        images, labels, held_out = read()
        chosen = held_out == (split == "held_out")
        super().__init__(images[chosen], labels[chosen], _MEAN, _STD)


@functools.cache  # a run has both splits
def read() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Images (1797, 28, 28), labels (1797,) and which samples are held out (1797,). Not to be changed in place."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("The digits come with scikit-learn, which is not installed. Type: pip install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path) as file:
        table = np.fromstring(file.read().replace(b"\n", b","), np.uint8, sep=",").reshape(-1, 65)
    labels = table[:, 64].astype(np.int64)
    return _enlarge(table[:, :64].reshape(-1, 8, 8).astype(np.float32)), labels, _held_out(labels)


def _held_out(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A fixed fifth of every class, chosen by a hash of the sample's number."""
    chosen = np.zeros(len(labels), bool)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        drawn = members[np.argsort(key(0, members.astype(np.uint64)))]
        chosen[drawn[: round(len(members) / 5)]] = True
    return chosen


def _enlarge(small: NDArray[np.float32]) -> NDArray[np.uint8]:
    images = torch.from_numpy(small).unsqueeze(1) * (255 / 16)
    large = torch.nn.functional.interpolate(images, size=_PIXELS, mode="bilinear", align_corners=False)
    pixels: NDArray[np.uint8] = large.squeeze(1).round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels
