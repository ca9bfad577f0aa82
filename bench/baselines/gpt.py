"""What `experiment=gpt` is held against: a byte model of order 5 on the same split.

    python bench/baselines/gpt.py

Interpolated as of Witten & Bell 1991 ("The Zero-Frequency Problem", method C): the estimate of a context has the weight of
its occurrences, that of the shorter context the number of distinct bytes that followed it. Prints bits a byte by order.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.data import Cache, Shakespeare

_ORDER = 5  # bytes of the longest context
_LENGTH = 256  # bytes of a window


def text(split: str) -> NDArray[np.int64]:
    """The bytes of a split, in their order, less those after its last whole window."""
    windows = Shakespeare(split, _LENGTH, "bytes", None, True, Cache())
    return torch.cat([windows[i][0] for i in range(len(windows) - 1)]).numpy()


def grams(octets: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The `size` bytes that end at each place, as one number."""
    codes = np.zeros(len(octets) - size + 1, np.int64)
    for i in range(size):
        codes = codes * 256 + octets[i : len(octets) - size + 1 + i]
    return codes


def count(keys: NDArray[np.int64], counts: NDArray[np.int64], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts of what is asked for, 0 where it is no key. `keys` are sorted."""
    where = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[where] == asked, counts[where], 0)


def main() -> None:
    train, held_out = text("train"), text("held_out")
    chances = np.full(len(held_out) - _ORDER, 1 / 256)
    for order in range(_ORDER + 1):
        seen, counts = np.unique(grams(train, order + 1), return_counts=True)
        contexts, starts = np.unique(seen >> 8, return_index=True)
        occurrences, kinds = np.add.reduceat(counts, starts), np.diff(np.append(starts, len(seen)))
        asked = grams(held_out, order + 1)[_ORDER - order :]
        total, new = count(contexts, occurrences, asked >> 8), count(contexts, kinds, asked >> 8)
        mixed = (count(seen, counts, asked) + new * chances) / np.maximum(total + new, 1)
        chances = np.where(total > 0, mixed, chances)
        print(f"order {order}: {-np.log2(chances).mean():.3f} bits a byte")


if __name__ == "__main__":
    main()
