"""What a user would rate an item."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from ...loading.batch import Batch
from ...sinks.shown import Shown, Table
from ..metric import Metric, Update
from ..task import Ratio, Sum, Task
from .ranking_metrics import UserAuc, UserNdcg

_SHOWN = 20  # ratings


class RatingPrediction(Task):
    """Squared error of ratings. A batch is (users, items, ratings), each (b,); the model answers to users and items.

    Metrics: `rmse`, and in evaluations `ndcg` and `auc` of each user's rated items in the order of their predictions, means
    over users. `liked` is the rating from which on an item counts as liked, for `auc`; `ndcg_at` the items that count.
    """

    def __init__(self, liked: float, ndcg_at: int = 10) -> None:
        if ndcg_at < 1:
            raise ConfigError(f"task.ndcg_at={ndcg_at} is to be 1 or more")
        self._liked, self._ndcg_at = liked, ndcg_at

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio | Update]:
        users, items, ratings = batch
        predicted = model(users, items)
        if predicted.shape != ratings.shape:
            raise ConfigError(
                f"the model answers with {tuple(predicted.shape)}, and the batch has {tuple(ratings.shape)} ratings. It is "
                "to give one number a pair"
            )
        predicted = predicted.to(torch.promote_types(predicted.dtype, torch.float32))
        loss = Ratio((predicted - ratings).square().sum(), len(ratings))
        update = Update(users, predicted.detach(), ratings)
        return {"loss": loss, "ndcg": update, "auc": update}

    def metrics(self) -> Mapping[str, Metric]:
        return {"ndcg": UserNdcg(self._ndcg_at), "auc": UserAuc(self._liked)}

    def derive(self, sums: Mapping[str, Sum]) -> Mapping[str, float]:
        return {"rmse": math.sqrt(sums["loss"].mean)}

    def predictions(self, model: nn.Module, batch: Batch) -> Sequence[Mapping[str, Any]]:
        """The rating of each pair."""
        users, items, _ = batch
        return [{"prediction": value} for value in model(users, items).float().tolist()]

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        users, items, ratings = (each[:_SHOWN] for each in batch)
        columns = zip(users.tolist(), items.tolist(), ratings.tolist(), model(users, items).tolist(), strict=True)
        rows = [[user, item, rating, round(predicted, 2)] for user, item, rating, predicted in columns]
        return {"ratings": Table(["user", "item", "rating", "predicted"], rows)}
