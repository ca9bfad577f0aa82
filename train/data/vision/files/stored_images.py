"""Images decoded and scaled once: their pixels in memory-mapped files, a shard each, of the cache of prepared data."""

import functools
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError
from phalanx.system.cpu_count import available

from ....prepared.cache import Output, Recipe
from .crops import Box, Plan
from .decode import decode
from .image_files import ImageFiles

_SHARD = 512  # images of a file: what a kill while they are prepared throws away at most
_LONG = 4 / 3  # longer side to the shorter one, of a usual photograph


def recipe(images: ImageFiles, side: int) -> Recipe:
    """How the images come into the cache, their shorter side at most `side` pixels. Other files are another data set."""
    if side < 1:
        raise ConfigError(f"stored={side} keeps no pixel. Set it to the shorter side, such as 256, or to null")
    options = {"files": images.fingerprint(), "side": side}
    return Recipe(f"images_{images.root.name}", 1, (), functools.partial(_write, images, side), options)


class StoredImages:
    """The images of a prepared folder by their index, (3, height, width) of uint8, read from the mapped files.

    Sent to another process without the mappings: a file is mapped where its first image is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes: NDArray[np.int32] = np.load(folder / "shapes.npy", allow_pickle=False)
        sizes = 3 * self._shapes.astype(np.int64).prod(1)
        self._ends = np.cumsum(sizes)
        self._shards: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> torch.Tensor:
        number = index // _SHARD
        pixels = self._shards.get(number)
        if pixels is None:
            # Copy-on-write: torch warns of arrays that cannot be written to.
            pixels = self._shards[number] = np.load(self._folder / _shard(number), mmap_mode="c", allow_pickle=False)
        height, width = self._shapes[index].tolist()
        before = int(self._ends[number * _SHARD - 1]) if number else 0
        stop = int(self._ends[index]) - before
        image = pixels[stop - 3 * height * width : stop].reshape(height, width, 3)
        return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shards": {}}


def _write(images: ImageFiles, side: int, _: Sequence[Path], out: Output) -> None:
    """A file of pixels and one of shapes for each shard; those that a start before completed stay as they are."""
    count = len(images.names)
    _check_room(out.folder, 3 * count * int(side * side * _LONG), count)
    shards = -(-count // _SHARD)
    with ThreadPoolExecutor(available()) as threads:
        for number in range(shards):
            names = images.names[number * _SHARD : (number + 1) * _SHARD]
            if not out.has(_shard(number)):
                pixels = list(threads.map(lambda name: _scaled(images.root / name, side), names))
                out.array(_shapes(number).removesuffix(".npy"), np.array([each.shape[:2] for each in pixels], np.int32))
                out.array(_shard(number).removesuffix(".npy"), np.concatenate([each.reshape(-1) for each in pixels]))
            out.progress(number + 1, shards)
    found = [np.load(out.folder / _shapes(number), allow_pickle=False) for number in range(shards)]
    out.array("shapes", np.concatenate(found))


def _scaled(path: Path, side: int) -> NDArray[np.uint8]:
    """The pixels (height, width, 3), the shorter side scaled to `side` where it is longer."""
    image = decode(path)
    _, height, width = image.shape
    if min(height, width) > side:
        size = (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
        image = Plan(Box(0, 0, height, width), size, None, False).apply(image)
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels


def _check_room(folder: Path, size: int, count: int) -> None:
    free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.iterdir())
    if size > free:
        raise ConfigError(
            f"{count} images take about {size / 1e9:.1f} GB as pixels, and {folder.parent} has room for "
            f"{free / 1e9:.1f} GB. Type data.cache= with a folder that has more, a smaller data.train.stored, or null to "
            "decode files each time"
        )


def _shard(number: int) -> str:
    return f"pixels_{number:05}.npy"


def _shapes(number: int) -> str:
    return f"shapes_{number:05}.npy"
