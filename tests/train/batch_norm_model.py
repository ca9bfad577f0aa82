"""A model whose forward changes its state, and a task that says nothing of what it counts."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.task import Ratio, Task
from tests.train.faulty_parts import CLASSES, WIDTH


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, CLASSES))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(inputs)
        return logits


class Undeclared(Task):
    """Divides by the number of logits, which is not that of samples."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        logits = model(batch[0])
        squares = (logits - F.one_hot(batch[1], CLASSES)).square()
        return {"loss": Ratio(squares.sum(), squares.numel())}
