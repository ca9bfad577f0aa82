"""Satellite pictures of land, coasts and lakes: tiles of NASA's Blue Marble, labelled by surveyed coastlines."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...prepared.cache import Cache, Output, Recipe
from ..images import ImagesInMemory
from .earth_maps import PACKAGE, cut, not_antarctic, read_earth

TILE = 30  # pixels a side, of 4 arc minutes: 2 degrees
_CLASSES = ("land", "coast", "lake")
_SEA, _LAND, _LAKE = 0, 1, 2  # in the map
_LAND_SHARE, _COAST_SHARE, _LAKE_SHARE, _NEARLY_NONE = 0.98, 0.1, 0.04, 0.01  # of a tile's pixels
_BAND, _EVERY = (
    3,
    5,
)  # columns of tiles in a band, and bands of which the last is held out: neighbours resemble each other
_MEAN, _STD = (0.334, 0.347, 0.288), (0.262, 0.222, 0.248)  # of the training tiles, by channel, in units of 0..1


class WaterTiles(ImagesInMemory):
    """Tiles (3, 30, 30) of a picture of 4 arc minutes a pixel, standardised, and what they show.

    Land: at least 98 % of its pixels; coast: a tenth of land and of sea, and no lake; lake: 4 % of it, and no sea. Other
    tiles are left out, as is what lies south of 60 degrees south. The `split` "test" is each fifth band of 6 degrees of
    longitude, "train" the others. Labels are of a map and not drawn on the picture.
    """

    classes = _CLASSES

    def __init__(self, split: str, cache: Cache, download: bool) -> None:
        if split not in ("train", "test"):
            raise ConfigError(f"The tiles have no split {split!r}. Type split=train or split=test")
        folder = cache.prepared(Recipe("water_tiles", 1, (PACKAGE,), prepare), download)
        images, labels, columns = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS)
        chosen = (columns // _BAND % _EVERY == _EVERY - 1) == (split == "test")
        pixels = torch.from_numpy(images[chosen])
        floats = pixels.float().div_(255).sub_(torch.tensor(_MEAN)).div_(torch.tensor(_STD))
        super().__init__(
            floats.permute(0, 3, 1, 2),  # in memory as rows of RGB pixels
            torch.from_numpy(labels[chosen].astype(np.int64)),
            hashlib.sha256(images[chosen].tobytes() + labels[chosen].tobytes()).hexdigest(),
        )

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a picture, for an export."""
        standard = {"mean": list(_MEAN), "std": list(_STD)}
        return {"kind": "image", "channels": 3, "size": [TILE, TILE], "resize": None, **standard}


ARRAYS = ("images", "labels", "columns")


def prepare(files: Sequence[Path], out: Output) -> None:
    """Write the tiles that show one of the classes, (n, 30, 30, 3), what they show, and which column each lies in."""
    found: tuple[NDArray[Any], ...] = labelled(*read_earth(files[0]))
    for name, values in zip(ARRAYS, found, strict=True):
        out.array(name, values)


def labelled(
    picture: NDArray[np.uint8], water: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Of a picture (h, w, 3) of the whole Earth, north above, and its map (h, w): tiles, classes and columns."""
    rows, columns = picture.shape[0] // TILE, picture.shape[1] // TILE
    tiles, maps = cut(picture, TILE), cut(water, TILE)
    sea, land, lake = ((maps == kind).mean((2, 3)) for kind in (_SEA, _LAND, _LAKE))
    kinds = np.full((rows, columns), len(_CLASSES), np.uint8)
    kinds[land >= _LAND_SHARE] = 0
    kinds[(sea > _COAST_SHARE) & (land > _COAST_SHARE) & (lake < _NEARLY_NONE)] = 1
    kinds[(lake > _LAKE_SHARE) & (sea < _NEARLY_NONE)] = 2
    chosen = (kinds < len(_CLASSES)) & not_antarctic(rows)[:, None]
    return tiles[chosen], kinds[chosen], np.nonzero(chosen)[1]
