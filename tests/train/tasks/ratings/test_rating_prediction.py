"""Errors and rankings of ratings, against scikit-learn, and alike however samples are shared among ranks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score, roc_auc_score

from phalanx.train.models.ratings.matrix_factorization import MatrixFactorization
from phalanx.train.models.ratings.neural_collaborative_filtering import NeuMF
from phalanx.train.models.ratings.two_tower import TwoTower
from phalanx.train.tasks.ratings.ranking_metrics import UserAuc, UserMetric, UserNdcg

DRAW = torch.Generator().manual_seed(0)
USERS = torch.randint(6, (80,), generator=DRAW)
SCORES = torch.randint(8, (80,), generator=DRAW) / 2  # with ties
RATINGS = torch.randint(1, 6, (80,), generator=DRAW).float()
METRICS: dict[str, Callable[[], UserMetric]] = {"ndcg": lambda: UserNdcg(5), "auc": lambda: UserAuc(4.0)}


def counted(name: str, *parts: slice) -> UserMetric:
    metrics = []
    for part in parts:
        metrics.append(METRICS[name]())
        metrics[-1].update(USERS[part], SCORES[part], RATINGS[part])
    metrics[0].merge(metrics[1:])
    return metrics[0]


def test_ndcg_and_auc_of_users_are_those_of_scikit_learn() -> None:
    each = [(SCORES[user == USERS].numpy(), RATINGS[user == USERS].numpy()) for user in range(6)]
    ndcg = np.mean([ndcg_score([2.0**ratings - 1], [scores], k=5) for scores, ratings in each])
    auc = np.mean([roc_auc_score(ratings >= 4, scores) for scores, ratings in each])
    assert counted("ndcg", slice(80)).compute() == pytest.approx(ndcg, abs=1e-12)
    assert counted("auc", slice(80)).compute() == pytest.approx(auc, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_they_are_the_same_bits_however_the_samples_were_shared(name: str) -> None:
    whole = counted(name, slice(80)).compute()
    assert counted(name, slice(13), slice(13, 55), slice(55, 80)).compute() == whole


def test_users_for_whom_a_number_is_not_defined_are_left_out() -> None:
    auc, ndcg = UserAuc(4.0), UserNdcg(10)
    for metric in (auc, ndcg):
        metric.update(torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0, 3.0]), torch.tensor([5.0, 1.0, 5.0]))
    assert (auc.compute(), ndcg.compute()) == (1.0, 1.0)
    assert math.isnan(UserAuc(4.0).compute())


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(MatrixFactorization, (4, 3.5)), (NeuMF, (4, [32, 16], 3.5)), (TwoTower, (4, 32, 3.5))],
    ids=["MatrixFactorization", "NeuMF", "TwoTower"],
)
def test_each_model_gives_one_number_a_pair_and_trains_every_parameter(
    kind: Callable[..., torch.nn.Module], sizes: tuple[object, ...]
) -> None:
    torch.manual_seed(0)
    model = kind(6, 9, *sizes)
    users, items = torch.tensor([0, 5, 5]), torch.tensor([8, 0, 1])
    rated = model(users, items)
    assert rated.shape == (3,)
    rated.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_sparse_tables_have_sparse_gradients() -> None:
    model = MatrixFactorization(6, 9, 4, 3.5, sparse=True)
    model(torch.tensor([0, 5, 5]), torch.tensor([8, 0, 1])).sum().backward()
    assert all(table.weight.grad is not None and table.weight.grad.is_sparse for table in (model.users, model.items))
