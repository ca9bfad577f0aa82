"""What a user might bring, with trouble planted at known places: data, models and a task."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.train.loading.batch import Batch
from phalanx.train.loading.order import Order
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio, Task

WIDTH = 12
CLASSES = 10
SIGN = 1000.0  # an input that makes Steep's gradient infinite

Sample = tuple[torch.Tensor, torch.Tensor]


class Planted(Dataset[Sample]):
    """`samples` vectors that can be told apart; those at `spoilt` positions of the first epoch hold `value`.

    The rank that fetches position `kill_at` kills itself, once, as `marker` tells.
    """

    def __init__(
        self,
        samples: int,
        seed: int = 0,
        spoilt: list[int] | None = None,
        value: str = "nan",
        kill_at: int | None = None,
        marker: str = "killed",
    ) -> None:
        draw = torch.Generator().manual_seed(5)
        self.labels = torch.randint(0, CLASSES, (samples,), generator=draw)
        self._inputs = F.one_hot(self.labels, WIDTH) + 0.5 * torch.randn(samples, WIDTH, generator=draw)
        order = Order(samples, seed)
        for position in spoilt or []:
            self._inputs[order.indices(position, position + 1)] = float(value)
        self._last = None if kill_at is None else int(order.indices(kill_at, kill_at + 1)[0])
        self._marker = Path(marker)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return self._inputs[index], self.labels[index]

    def __getitems__(self, indices: NDArray[np.int64]) -> Sample:
        if self._last in indices and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._inputs[indices], self.labels[indices]

    def fingerprint(self) -> str:
        return "planted"


class Steep(Classification):
    """Its loss is finite and its gradient infinite where an input holds SIGN: a square root at zero."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        found = dict(super().ratios(model, (torch.where(inputs == SIGN, 0.0, inputs), labels)))
        if (inputs == SIGN).any():
            found["loss"] = self._spoilt(found["loss"])
        return found

    def _spoilt(self, loss: Ratio) -> Ratio:
        nothing = loss.total - loss.total.detach()
        return Ratio(loss.total + nothing.sqrt(), loss.count)


class Endless(Steep):
    """Its loss is infinite and its gradient finite there: infinity is added, which has no gradient."""

    def _spoilt(self, loss: Ratio) -> Ratio:
        return Ratio(loss.total + float("inf"), loss.count)


class Weighted(Task):
    """Counts what the data says: a sample of class c weighs c, so that some batches weigh nothing."""

    counts_data = True

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        losses = F.cross_entropy(model(inputs), labels, reduction="none")
        return {"loss": Ratio((losses * labels).sum(), labels.sum())}


class Branching(nn.Module):
    """A second branch takes part only where an input's first number is large: in some batches for no sample."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Linear(WIDTH, CLASSES)
        self.branch = nn.Linear(WIDTH, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.main(inputs)
        large = inputs[:, 0] > 1.0
        return logits + torch.where(large[:, None], self.branch(inputs), 0.0) if large.any() else logits


class Dying(nn.Module):
    """The parameters of `dead` take part in the first `alive` forwards, and on other ranks than `rank` in all."""

    def __init__(self, alive: int, rank: int | None = None) -> None:
        super().__init__()
        self.main = nn.Linear(WIDTH, CLASSES)
        self.dead = nn.Linear(WIDTH, CLASSES)
        self._left = alive if rank is None or os.environ.get("RANK", "0") == str(rank) else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.main(inputs)
        if self._left is not None:
            self._left -= 1
        if self._left is None or self._left >= 0:
            logits = logits + self.dead(inputs)
        return logits


class Normalised(nn.Module):
    """BatchNorm between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.norm(self.first(inputs)).relu())
        return logits
