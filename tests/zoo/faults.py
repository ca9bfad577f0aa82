"""Bugs of users, at known places: what is told of them has to lead there."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio
from tests.train.faulty_parts import CLASSES, WIDTH, Planted, Sample


class TwoLinesError(RuntimeError):
    """Says its cause in its first line and what is to be done in others."""


class Torn(Dataset[Sample]):
    """The sample at `index` cannot be read."""

    def __init__(self, samples: int, index: int) -> None:
        self._good = Planted(samples)
        self._index = index

    def __len__(self) -> int:
        return len(self._good)

    def __getitem__(self, index: int) -> Sample:
        if index == self._index:
            raise TwoLinesError(f"image {index} is torn\nscan it anew\nor leave it out")
        return self._good[index]

    def fingerprint(self) -> str:
        return "torn"


class Mismatched(nn.Module):
    """Its layers do not fit together from the forward `after` on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 8)
        self.last = nn.Linear(8, CLASSES)
        self._left = after

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs)
        self._left -= self.training
        logits: torch.Tensor = self.last(hidden if self._left >= 0 else hidden[:, 1:])
        return logits


class Chained(Classification):
    """Fails in an evaluation, while it handles what failed before."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        scores: dict[str, Mapping[str, Ratio]] = {}
        if not model.training:
            try:
                return scores["score"]
            except KeyError as error:
                raise TwoLinesError("no score") from error
        return super().ratios(model, batch)
