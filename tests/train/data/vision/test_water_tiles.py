"""Tiles of satellite pictures by what they show, and the augmentation of small images."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phalanx.data import PadCropFlip, WaterTiles
from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision import water_tiles
from phalanx.train.loading.rng import Draws
from phalanx.train.prepared.cache import Cache

TILE, ROWS, COLUMNS = water_tiles.TILE, 6, 12
SEA, LAND, LAKE = 0, 1, 2


def earth() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture whose tiles have their number as grey value, and a map that is land but for a few tiles."""
    number = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, 1, COLUMNS, 1, 1)
    picture = np.broadcast_to(number, (ROWS, TILE, COLUMNS, TILE, 3)).reshape(ROWS * TILE, COLUMNS * TILE, 3)
    water = np.full((ROWS, TILE, COLUMNS, TILE), LAND, np.uint8)
    water[0, :10, 1] = SEA  # a coast
    water[0, :2, 2] = LAKE
    water[1, :1, 3] = SEA  # too little of it for any class
    water[1, :10, 4], water[1, -2:, 4] = SEA, LAKE  # both
    water[2, :, 5] = SEA
    return picture, water.reshape(ROWS * TILE, COLUMNS * TILE)


def test_tiles_are_labelled_by_the_map_and_the_south_is_left_out() -> None:
    tiles, kinds, columns = water_tiles.labelled(*earth())
    numbers = tiles[:, 0, 0, 0].tolist()
    assert (tiles == tiles[:, :1, :1, :1]).all()
    last = (ROWS - 1) * COLUMNS  # the row at 75 degrees south
    assert sorted({*range(last)} - {*numbers}) == [COLUMNS + 3, COLUMNS + 4, 2 * COLUMNS + 5]
    assert max(numbers) < last
    assert {number: kind for number, kind in zip(numbers, kinds.tolist(), strict=True) if kind} == {1: 1, 2: 2}
    assert (columns == np.array(numbers) % COLUMNS).all()


def test_bands_of_longitude_are_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = np.arange(60)
    images = np.broadcast_to(columns.astype(np.uint8)[:, None, None, None], (60, TILE, TILE, 3))
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", columns % 3)
    np.save(tmp_path / "columns.npy", columns)
    monkeypatch.setattr(Cache, "prepared", lambda cache, recipe, download: tmp_path)
    train, test = (WaterTiles(split, Cache(tmp_path), False) for split in ("train", "test"))
    assert (len(train), len(test)) == (48, 12)
    mean, std = (torch.tensor(numbers) for numbers in (water_tiles._MEAN, water_tiles._STD))
    held_out = test._images.permute(0, 2, 3, 1)[:, 0, 0] * std + mean
    assert (held_out * 255).round()[:, 0].tolist() == [*range(12, 15), *range(27, 30), *range(42, 45), *range(57, 60)]
    assert test.labels.tolist() == [
        column % 3 for column in (*range(12, 15), *range(27, 30), *range(42, 45), *range(57, 60))
    ]
    assert train.fingerprint() != test.fingerprint()
    batch, labels = test.__getitems__(np.array([3, 0]))
    assert torch.equal(batch[1], test[0][0])
    assert labels.tolist() == [0, 0]
    with pytest.raises(ConfigError, match="no split 'val'"):
        WaterTiles("val", Cache(tmp_path), False)


def test_small_images_are_shifted_and_mirrored_within_bounds() -> None:
    """Each pixel is one of the image's, at most `pad` from where it was, or mirrored; nothing else is made up."""
    image = torch.arange(63.0).view(1, 1, 7, 9).expand(400, 3, 7, 9)
    labels = torch.arange(400)
    changed, same = PadCropFlip(2, vertical=False)((image, labels), Draws(0, np.arange(400)))
    assert same is labels
    rows, columns = changed[:, 0].div(9, rounding_mode="floor"), changed[:, 0] % 9
    assert sorted({*(rows[:, 3, 0] - 3).tolist()}) == [-2, -1, 0, 1, 2]
    steps = Counter((columns[:, 0, 4] - columns[:, 0, 3]).tolist())
    assert {*steps} == {-1, 1}
    assert min(steps.values()) > 150
    assert ((rows[:, 4] - rows[:, 3]) == 1).all()  # never upside down
    turned, _ = PadCropFlip(0, vertical=True)((image, labels), Draws(0, np.arange(400)))
    assert {tuple(each) for each in turned[:, 0, :, 0].div(9, rounding_mode="floor").tolist()} == {
        tuple(map(float, range(7))),
        tuple(map(float, range(6, -1, -1))),
    }
