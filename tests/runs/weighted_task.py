"""A task whose loss is divided by something that only the data knows."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.task import Ratio, Task


def weights_of(labels: torch.Tensor) -> torch.Tensor:
    """A third of the samples count nothing, as padding does."""
    return labels.remainder(3).double()


class Weighted(Task):
    counts_data: ClassVar[bool] = True

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        losses = F.cross_entropy(model(inputs), labels, reduction="none")
        weights = weights_of(labels)
        return {"loss": Ratio((losses * weights).sum(), weights.sum())}
