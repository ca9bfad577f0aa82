"""What a user's own code may do: draw at random wherever it likes, normalise batches, and count."""

import os
import random
import signal
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.task import Ratio, Task

FEATURES, CLASSES = 6, 3
Sample = tuple[torch.Tensor, torch.Tensor]


class Drawn(Dataset[Sample]):
    """Half of 200 made samples, parted at random in __init__; each comes with noise of every kind.

    The process that is asked for sample `deadly` is killed; sample `broken` cannot be read.
    """

    def __init__(self, half: int, deadly: int = -1, broken: int = -1) -> None:
        inputs = torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(1))
        chosen = torch.from_numpy(np.random.permutation(200)[100 * half : 100 * half + 100])
        self._inputs = inputs[chosen]
        self._deadly = deadly
        self._broken = broken

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> Sample:
        if index == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self._broken:
            raise OSError(f"sample {index} is broken")
        inputs = self._inputs[index]
        noise = 0.1 * torch.randn(FEATURES) + 0.1 * np.random.randn() + random.uniform(-0.1, 0.1)
        return inputs + noise, inputs[:CLASSES].argmax()

    def fingerprint(self) -> str:
        return "drawn"


class Noisy(nn.Module):
    """Draws from every generator in each forward, in an evaluation, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(inputs) * random.uniform(0.9, 1.1)
        return logits + 0.1 * torch.randn_like(logits) + 0.1 * np.random.randn()


class Normed(nn.Module):
    """With running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(inputs)
        return logits


class Numbered(Dataset[tuple[torch.Tensor, int]]):
    """Sample i is i, beside inputs that do not matter."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.ones(FEATURES), index


class Census(Task):
    """A loss, and sums that tell which samples were seen: all of them once, if the two powers and the count are right."""

    counts_data: ClassVar[bool] = False

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, numbers = batch
        loss = F.cross_entropy(model(inputs), torch.zeros_like(numbers), reduction="sum")
        return {
            "loss": Ratio(loss, len(numbers)),
            "first": Ratio(numbers.sum(), 1),
            "second": Ratio(numbers.square().sum(), 1),
            "batches": Ratio(torch.ones(()), 1),
            "mean": Ratio(numbers.sum(), len(numbers)),
        }


def overrides(model: str = "Noisy", **data: int) -> list[str]:
    """A run of `model` on Drawn, with these arguments for its training data."""
    return [
        "~model",
        f"+model._target_=tests.runs.random_user_code.{model}",
        "~data.train.split",
        "data.train._target_=tests.runs.random_user_code.Drawn",
        "+data.train.half=0",
        *(f"+data.train.{name}={value}" for name, value in data.items()),
        "~data.eval.split",
        "data.eval._target_=tests.runs.random_user_code.Drawn",
        "+data.eval.half=1",
        "data.augment=null",
        f"task.classes={CLASSES}",
        "train.global_batch=16",
    ]
