"""How well each user's items are ranked: NDCG and AUC, means over users."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..metric import Metric


class UserMetric(Metric):
    """A number of each user's items, and its mean over the users for whom it is defined; NaN where it is for none."""

    def __init__(self) -> None:
        self._users: list[torch.Tensor] = []
        self._scores: list[torch.Tensor] = []
        self._ratings: list[torch.Tensor] = []

    def update(self, users: torch.Tensor, scores: torch.Tensor, ratings: torch.Tensor) -> None:
        """Users, predicted and true ratings of a batch, each (b,)."""
        self._users.append(users.cpu())
        self._scores.append(scores.cpu())
        self._ratings.append(ratings.cpu())

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self._users += other._users
            self._scores += other._scores
            self._ratings += other._ratings

    def compute(self) -> float:
        if not self._users:
            return math.nan
        users, scores, ratings = (
            torch.cat(each).double().numpy() for each in (self._users, self._scores, self._ratings)
        )
        order = np.lexsort((scores, users))
        cuts = np.flatnonzero(np.diff(users[order])) + 1
        of_users = [self.of_user(scores[mine], ratings[mine]) for mine in np.split(order, cuts)]
        defined = [value for value in of_users if not math.isnan(value)]
        return math.fsum(defined) / len(defined) if defined else math.nan

    @abstractmethod
    def of_user(self, scores: NDArray[np.float64], ratings: NDArray[np.float64]) -> float:
        """The number of one user's items, or NaN where it is not defined."""


class UserNdcg(UserMetric):
    """Normalised discounted cumulative gain of the first `at` items (Järvelin & Kekäläinen 2002), the gain of a rating r
    being 2 ** r - 1, as in Burges et al. 2005.

    Items of equal scores have the mean gain of all of them, so no order among them is better. Defined for a user of two
    items or more.
    """

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def of_user(self, scores: NDArray[np.float64], ratings: NDArray[np.float64]) -> float:
        if len(scores) < 2:
            return math.nan
        gains = 2.0**ratings - 1
        _, ties = np.unique(scores, return_inverse=True)
        shared = (np.bincount(ties, gains) / np.bincount(ties))[ties]
        best = self._discounted(np.sort(gains)[::-1])
        return self._discounted(shared[np.argsort(-scores, kind="stable")]) / best if best > 0 else math.nan

    def _discounted(self, gains: NDArray[np.float64]) -> float:
        first = gains[: self._at]
        return float((first / np.log2(np.arange(2, len(first) + 2))).sum())


class UserAuc(UserMetric):
    """The share of pairs of a liked and another item that are ranked right, ties counted half (Hanley & McNeil 1982).

    An item is liked from the rating `liked` on. Defined for a user who has items of both kinds.
    """

    def __init__(self, liked: float) -> None:
        super().__init__()
        self._liked = liked

    def of_user(self, scores: NDArray[np.float64], ratings: NDArray[np.float64]) -> float:
        liked = ratings >= self._liked
        above, below = scores[liked], scores[~liked]
        if not len(above) or not len(below):
            return math.nan
        wins = (above[:, None] > below).sum() + 0.5 * (above[:, None] == below).sum()
        return float(wins) / (len(above) * len(below))
