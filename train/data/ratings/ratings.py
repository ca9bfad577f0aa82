"""Ratings of items by users: from a table of one's own, and what such sets share."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ..text.table import read_rows

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Ratings(Dataset[Sample]):
    """A user, an item and a rating each; a batch is (b,) int64, (b,) int64 and (b,) float32."""

    def __init__(
        self, users: NDArray[np.int64], items: NDArray[np.int64], ratings: NDArray[np.float32], sizes: tuple[int, int]
    ) -> None:
        """`sizes`: how many users and items there are, in this split and others."""
        self._sizes = sizes
        self.users, self.items = torch.from_numpy(users), torch.from_numpy(items)
        self.ratings = torch.from_numpy(ratings)
        digest = hashlib.sha256(users.tobytes())
        digest.update(items.tobytes())
        digest.update(ratings.tobytes())
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, index: int) -> Sample:
        return self.users[index], self.items[index], self.ratings[index]

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> Sample:
        where = torch.as_tensor(np.asarray(indices))
        return self.users[where], self.items[where], self.ratings[where]

    def fingerprint(self) -> str:
        """SHA-256 in hex over users, items and ratings."""
        return self._fingerprint

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a pair, for exports."""
        return {
            name: {"kind": "index", "size": size} for name, size in zip(("users", "items"), self._sizes, strict=True)
        }


class RatingTable(Ratings):
    """The ratings of a .tsv, .csv, .jsonl or .parquet `file`, whose columns are called `user`, `item` and `rating`.

    Users and items are whole numbers from 0 to `users` - 1 and `items` - 1, which are the rows of the model's tables.
    """

    def __init__(
        self,
        file: str,
        users: int,
        items: int,
        user: str = "user",
        item: str = "item",
        rating: str = "rating",
        encoding: str = "utf-8",
    ) -> None:
        found: list[tuple[int, int, float]] = []
        for line, cells in read_rows(file, (user, item, rating), encoding):
            at = f"{file}, line {line}"
            found.append(
                (_row(cells[0], user, users, at), _row(cells[1], item, items, at), _number(cells[2], rating, at))
            )
        columns = [*zip(*found, strict=True)]
        whose, which = (np.array(column, np.int64) for column in columns[:2])
        super().__init__(whose, which, np.array(columns[2], np.float32), (users, items))


def _row(cell: str, column: str, rows: int, at: str) -> int:
    number = int(cell) if cell.isascii() and cell.isdigit() else -1
    if not 0 <= number < rows:
        raise ConfigError(
            f"{at}: {column} is {cell!r}, and no whole number from 0 to {rows - 1}. Number them from 0, or type "
            f"{column}s= with how many there are"
        )
    return number


def _number(cell: str, column: str, at: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{at}: {column} is {cell!r}, and no finite number. Mend the line")
    return number
