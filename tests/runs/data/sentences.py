"""Sentences of different lengths, some unreadable, and what trains on them. Apart, because workers import it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx import Augment, Ratio, Task

WORDS, CLASSES = 23, 3

Sentence = dict[str, Any]


class Sentences(Dataset["Sentence | None"]):
    """Sample i has 1 to 7 words; each `unreadable`-th is None."""

    def __init__(self, samples: int, unreadable: int = 0) -> None:
        draw = np.random.default_rng(3)
        self.lengths = draw.integers(1, 8, samples).tolist()
        self.labels = draw.integers(0, CLASSES, samples)
        self._ids = [torch.from_numpy(draw.integers(1, WORDS, length)) for length in self.lengths]
        self._unreadable = unreadable

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sentence | None:
        if self._unreadable and index % self._unreadable == self._unreadable - 1:
            return None
        return {"ids": self._ids[index], "text": f"sentence {index}", "label": int(self.labels[index])}


def pad(samples: Sequence[Sentence | None], longest: int = 0) -> Sentence:
    """Ids (samples, words), filled up with 0, with the texts and labels. Samples that are None are left out."""
    there = [sample for sample in samples if sample is not None]
    assert there, "a collate is not asked where no sample is left"
    ids = nn.utils.rnn.pad_sequence([sample["ids"] for sample in there], batch_first=True)
    ids = F.pad(ids, (0, max(0, longest - ids.shape[1])))
    texts, labels = [sample["text"] for sample in there], np.array([sample["label"] for sample in there])
    return {"ids": ids, "text": texts, "label": labels}


def nothing(samples: Sequence[Sentence]) -> None:
    pad(samples)


def raises(samples: Sequence[Sentence]) -> Sentence:
    return {"ids": torch.stack([sample["ids"] for sample in samples])}


def masked(samples: Sequence[Sentence]) -> Sentence:
    """Draws from torch's global generator."""
    batch = pad(samples)
    return {**batch, "ids": batch["ids"] * (torch.rand(batch["ids"].shape) < 0.8)}


class Collating(Sentences):
    """Brings its collate along."""

    def collate(self, samples: Sequence[Sentence | None]) -> Sentence:
        return pad(samples)


class Bag(nn.Module):
    """The mean of a sentence's words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        there = (ids > 0).unsqueeze(-1)
        scores: torch.Tensor = self.head((self.words(ids) * there).sum(1) / there.sum(1).clamp(min=1))
        return scores


class Classify(Task):
    def ratios(self, model: nn.Module, batch: Sentence) -> Mapping[str, Ratio]:
        assert all(text.startswith("sentence ") for text in batch["text"])
        labels = batch["label"]
        loss = F.cross_entropy(model(batch["ids"]), labels, reduction="sum")
        return {"loss": Ratio(loss, len(labels))}

    def derive(self, sums: Mapping[str, Any]) -> Mapping[str, float]:
        return {"perplexity": math.exp(sums["loss"].mean)}  # a batch without a sample has no loss


class Waiting(Classify):
    """Sums over the ranks in its forward, by the default group, as a SyncBatchNorm does."""

    def ratios(self, model: nn.Module, batch: Sentence) -> Mapping[str, Ratio]:
        if dist.is_initialized():
            dist.all_reduce(torch.zeros(()))
        return super().ratios(model, batch)


class Mixup(Augment):
    """Inputs (b, …) and one-hot labels, mixed with those of a partner from anywhere in the global batch.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
    """

    def __call__(self, batch: Any, draws: Any, partners: Any = None) -> Any:
        (inputs, labels), (others, their_labels) = batch, partners
        share = draws.uniform(1).view(-1, *[1] * (inputs.dim() - 1))
        mixed = F.one_hot(labels, 10) * share.view(-1, 1) + F.one_hot(their_labels, 10) * (1 - share.view(-1, 1))
        return inputs * share + others * (1 - share), mixed


class SoftLabels(Task):
    """Cross entropy against probabilities of classes."""

    def ratios(self, model: nn.Module, batch: Any) -> Mapping[str, Ratio]:
        inputs, labels = batch
        labels = labels if labels.dim() == 2 else F.one_hot(labels, 10)
        logits = model(inputs)
        return {"loss": Ratio(F.cross_entropy(logits, labels.to(logits.dtype), reduction="sum"), len(logits))}
