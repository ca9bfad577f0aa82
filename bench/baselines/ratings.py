"""What `experiment=ratings` is held against: the mean rating, and the mean with a bias of each user and film.

python bench/baselines/ratings.py
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path[0] = str(Path(__file__).resolve().parents[2])

from phalanx.data import Cache, MovieLens, Ratings

_DAMPING = (0, 1, 2, 5, 10, 25)  # ratings of the mean that each bias begins with
_ROUNDS = 30


def biased(train: Ratings, held_out: Ratings, damping: float) -> NDArray[np.float64]:
    """The mean with damped biases, fitted by alternating least squares (Koren 2009, section 2.1)."""
    users, items, ratings = train.users.numpy(), train.items.numpy(), train.ratings.numpy().astype(np.float64)
    mean, most = ratings.mean(), (int(users.max()) + 1, int(items.max()) + 1)
    of_user: NDArray[Any] = np.zeros(most[0])
    of_item: NDArray[Any] = np.zeros(most[1])
    counts = [
        np.maximum(damping + np.bincount(rows, minlength=number), 1)
        for rows, number in zip((users, items), most, strict=True)
    ]
    for _ in range(_ROUNDS):
        of_item = np.bincount(items, ratings - mean - of_user[users], most[1]) / counts[1]
        of_user = np.bincount(users, ratings - mean - of_item[items], most[0]) / counts[0]
    known = held_out.items.numpy() < most[1]
    predicted: NDArray[np.float64] = mean + of_user[held_out.users.numpy()]
    return predicted + np.where(known, of_item[held_out.items.numpy() * known], 0)


def main() -> None:
    train, held_out = (MovieLens(split, Cache()) for split in ("train", "held_out"))
    stars = held_out.ratings.numpy().astype(np.float64)
    print(f"mean: rmse {math.sqrt(np.square(stars - train.ratings.double().mean().item()).mean()):.4f}")
    for damping in _DAMPING:
        error = math.sqrt(np.square(stars - biased(train, held_out, damping)).mean())
        print(f"biases, damping {damping}: rmse {error:.4f}")


if __name__ == "__main__":
    main()
