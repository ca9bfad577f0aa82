"""The interface of a task: loss and metrics of a model and a batch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from ..loading.batch import Batch
from ..sinks.shown import Shown
from .metric import Update
from .now import Now


class Ratio(NamedTuple):
    """A sum and its count. Both are added over batches and ranks before the division."""

    total: torch.Tensor
    count: torch.Tensor | int  # type: ignore[assignment]  # hides tuple's own count, which nobody needs here


class Sum(NamedTuple):
    """A ratio's sum and its count over all samples of an evaluation, or of a line of training."""

    total: float
    count: float  # type: ignore[assignment]  # hides tuple's own count, which nobody needs here

    @property
    def mean(self) -> float:
        """Their ratio; NaN where nothing was counted."""
        return self.total / self.count if self.count else math.nan


class Task(ABC):
    """Turns a model's answer to a batch into ratios, one of which is called "loss", and updates of metrics.

    `counts_data` tells whether the loss is divided by something that only the data knows, such as tokens or labelled
    pixels. Where it is False, the loss counts samples.

    `predicts` is set by a task whose prediction is more than one call of the model: `predict` makes it of "text" or of an
    "image".

    `phases` are losses with parameters of their own, as of a GAN: the name of each and a regular expression for its
    parameters, in the order of a step. `ratios` is called in each, and `self.now.phase` says which it is.
    """

    counts_data: ClassVar[bool] = False
    phases: ClassVar[Mapping[str, str]] = {}
    predicts: ClassVar[str | None] = None
    now: Now = Now()

    @abstractmethod
    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio | Update]:
        """The loss, differentiable in its total, and any ratios, for training and evaluation alike.

        Beside them `Update(…)` under a name of `metrics` is what that one is updated with in an evaluation. Training leaves
        it alone: nothing there adds up what is no sum.
        """

    def metrics(self) -> Mapping[str, Any]:
        """Metrics that are no ratio of sums, by name, each made anew here: they are of one evaluation.

        Called on every rank at the start of each evaluation, and must give the same names there. Metrics of torchmetrics
        are welcome, and collections of them: each is copied, and merged over ranks without its own synchronisation.
        """
        return {}

    def derive(self, sums: Mapping[str, Sum]) -> Mapping[str, float]:
        """Further numbers that are functions of the sums, such as {"perplexity": math.exp(sums["loss"].mean)}.

        `sums` are those of `ratios` by name, over all samples of an evaluation, and in training over the steps of a line of
        metrics.jsonl; the latter may have others. Called on every rank with the same numbers.
        """
        return {}

    def predictions(self, model: nn.Module, batch: Batch) -> Sequence[Mapping[str, Any]]:
        """What is predicted of each sample of the batch, in their order, such as {"prediction": 3, "score": 0.9}.

        Called in an evaluation for the samples that `eval.predictions` keeps, the model in eval mode and without autograd.
        Each becomes a line of `predictions/` in the run folder, with the sample's index.
        """
        raise NotImplementedError

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        """What to show of an evaluation beside numbers, by name: `Image`, `Table`, `Text` or `Audio`.

        Called on rank 0 with the first batch of each evaluation, the model in eval mode and without autograd; nothing of
        it is in the way of training. What it gives is in `shown/` of the run folder, in TensorBoard and in W&B.
        """
        return {}

    def postprocessing(self) -> Mapping[str, Any]:
        """What an exported model's answer means, as docs/deployment.md lists it, such as {"kind": "classes"}."""
        return {"kind": "tensor"}

    def predict(self, model: nn.Module, raw: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        """What is predicted of raw inputs, where the class says what they are by `predicts`: texts, or images (3, h, w) of
        floats within 0 and 1, each of its own size. The model is in eval mode and without autograd.

        Each answer has `prediction`, and `score` where there is one; an `Image` or `Audio` in it becomes a file. Raises
        ConfigError for an input that cannot be taken.
        """
        raise NotImplementedError

    def check(self, dataset: Dataset[Any]) -> None:
        """Raise ConfigError when `dataset` does not fit the task. Called once a data set before training."""
        return None
