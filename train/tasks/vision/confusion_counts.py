"""Intersection over union of classes, from counts of pixels by true and found class."""

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch

from ..metric import Metric


def confusion_counts(found: torch.Tensor, true: torch.Tensor, classes: int) -> torch.Tensor:
    """How many pixels of each true class (rows) were taken for each class (columns), (classes, classes) of int64.

    `found` and `true` are of one shape; where `true` is no class, such as what is to be ignored, nothing is counted.
    """
    found, true = found.reshape(-1).long(), true.reshape(-1).long()
    left_out = classes * classes
    cell = torch.where((true >= 0) & (true < classes), true * classes + found, left_out)
    return torch.bincount(cell, minlength=left_out + 1)[:left_out].view(classes, classes)


class IntersectionOverUnion(Metric):
    """Pixels of which a class is true and found, over those of which it is either; NaN for a class that is neither.

    `update` gets `confusion_counts`. With `mean` it is one number, the mean over the classes that are there (mIoU), else
    one by the name of each class. Counts are whole numbers, so they are exact on any number of ranks.
    """

    def __init__(self, classes: Sequence[str], mean: bool) -> None:
        self.classes = list(classes)
        self.mean = mean
        self.counts = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64)

    def update(self, counts: torch.Tensor) -> None:
        self.counts = self.counts.to(counts.device) + counts

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.counts = self.counts.to(other.counts.device) + other.counts

    def compute(self) -> float | Mapping[str, float]:
        counts = self.counts.double().cpu()
        both = counts.diagonal()
        shares = (both / (counts.sum(0) + counts.sum(1) - both)).tolist()
        if not self.mean:
            return dict(zip(self.classes, shares, strict=True))
        there = [share for share in shares if not math.isnan(share)]
        return sum(there) / len(there) if there else math.nan
