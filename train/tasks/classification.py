"""One class a sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ..loading.batch import Batch, shapes
from ..sinks.shown import Shown
from .drawing.confusion_matrix import ConfusionMatrix
from .drawing.labelled_images import class_names, labelled_images
from .metric import Update
from .model_answer import logits_of
from .task import Ratio, Task

_ROUNDING = 1e-2  # of a row of probabilities in half precision
MOST_DRAWN = 200  # classes of a confusion matrix


class Classification(Task):
    """Cross entropy in nats a sample, and accuracy. A batch is (inputs, labels), labels (b,) within 0..classes-1.

    A batch may also be a dict that holds `labels`; all else of it is passed to the model by keyword. The model answers with
    logits (b, classes), or with something that holds them: `logits` of a dict or an object, or the first of a tuple.

    In training labels may be probabilities (b, classes), as `MixupCutmix` makes them; accuracy compares with the most
    probable class. `top` adds `top<n>_accuracy`: the label is among the n classes with the largest logits.

    `metrics` are of torchmetrics, by name, each updated with logits (b, classes) and labels (b,). A class derived from this
    one that has a method `metrics` needs no more, either.

    An evaluation shows the confusion matrix of all samples, of up to 200 classes, and where inputs are images of 1, 3 or 4
    channels the first ones with what is predicted of them. Classes have the names that a data set's `classes` gives them.
    """

    def __init__(
        self, classes: int, label_smoothing: float, metrics: Mapping[str, Any] | None = None, top: int | None = None
    ) -> None:
        if classes < 2:
            raise ConfigError(f"task.classes={classes} leaves nothing to tell apart. It must be at least 2")
        if top is not None and not 1 < top < classes:
            raise ConfigError(
                f"task.top={top} of {classes} classes tells nothing. Type 2 to {classes - 1}, or task.top=null"
            )
        self._top = top
        self._classes = classes
        self._label_smoothing = label_smoothing
        self._given = dict(metrics or {})
        self._names: list[str] | None = None
        self._metrics: list[str] | None = None  # their names, once an evaluation has asked
        self._looked_at: set[bool] = set()  # whether in training, of the batches that were looked at

    # Any is Ratio | Update, and lets a derived class that has ratios alone say so.
    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        inputs, labels = self._checked(batch, model.training)
        logits = logits_of(model(**inputs) if isinstance(inputs, dict) else model(inputs))
        self._check_shape(logits, len(labels))
        loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self._label_smoothing)
        expected = labels if labels.dim() == 1 else labels.argmax(1)
        correct = (logits.argmax(1) == expected).sum()
        ratios: dict[str, Any] = {"loss": Ratio(loss, len(labels)), "accuracy": Ratio(correct, len(labels))}
        if self._top is not None:
            among = (logits.topk(self._top, 1).indices == expected[:, None]).sum()
            ratios[f"top{self._top}_accuracy"] = Ratio(among, len(labels))
        return ratios if model.training else {**self._updates(logits, labels), **ratios}

    def metrics(self) -> Mapping[str, Any]:
        drawn = {"confusion_matrix": ConfusionMatrix(self._classes, self._names)} if self._classes <= MOST_DRAWN else {}
        return {**drawn, **self._given}

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        inputs, labels = self._checked(batch, model.training)
        if not isinstance(inputs, torch.Tensor) or inputs.dim() != 4 or inputs.shape[1] not in (1, 3, 4):
            return {}
        inputs, labels = inputs[: self.now.shown], labels[: self.now.shown]
        scores, found = logits_of(model(inputs)).double().softmax(1).max(1)
        return {"samples": labelled_images(inputs, labels, found, scores=scores, names=self._names, limit=len(inputs))}

    def predictions(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The class with the highest probability, that probability as `score`, and the label."""
        inputs, labels = self._checked(batch, model.training)
        logits = logits_of(model(**inputs) if isinstance(inputs, dict) else model(inputs))
        scores, classes = logits.double().softmax(1).max(1)
        found = zip(classes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        return [{"prediction": kind, "score": score, "label": label} for kind, score, label in found]

    def postprocessing(self) -> Mapping[str, Any]:
        return {"kind": "classes"}

    def _updates(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Update]:
        if self._metrics is None:
            self._metrics = list(self.metrics())
        return {name: Update(logits, labels) for name in self._metrics}

    def _checked(self, batch: Batch, training: bool) -> tuple[Any, torch.Tensor]:
        """Inputs and labels. The range is checked in the first batch of training and of evaluation."""
        if isinstance(batch, Mapping) and isinstance(batch.get("labels"), torch.Tensor):
            batch = ({name: value for name, value in batch.items() if name != "labels"}, batch["labels"])
        if not isinstance(batch, list | tuple) or len(batch) != 2 or not isinstance(batch[1], torch.Tensor):
            keys = f" with the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
            raise ConfigError(
                f"This task's batches are pairs of inputs and labels, and the data give {shapes(batch)} in a "
                f"{type(batch).__name__}{keys}. Return (input, label) from __getitem__, or a dict with labels in it, or "
                "type task._target_= and a task of your own"
            )
        inputs, labels = batch
        if training and labels.is_floating_point() and labels.dim() == 2:
            self._check_probabilities(labels)
            return inputs, labels
        if labels.dim() != 1 or labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
            raise ConfigError(
                f"The labels of a batch are {shapes(labels)}, and this task wants one whole number a sample, from 0 to "
                f"{self._classes - 1}. Return int(label) from __getitem__, the argmax of one-hot labels; for other "
                "targets type task._target_= and a task of your own"
            )
        if training not in self._looked_at:
            self._looked_at.add(training)
            self._check_range(int(labels.min()), int(labels.max()), f"of {'training' if training else 'evaluation'}")
        return inputs, labels.long()

    def _check_probabilities(self, labels: torch.Tensor) -> None:
        """Of the first batch their number and sum."""
        if labels.shape[1] != self._classes:
            raise ConfigError(
                f"The labels of training are probabilities of {labels.shape[1]} classes, and task.classes={self._classes}. "
                "Type the same number of classes for the augmentation and the task"
            )
        if True not in self._looked_at:
            self._looked_at.add(True)
            sums = labels.detach().double().sum(1)
            if bool((labels < 0).any()) or float((sums - 1).abs().max()) > _ROUNDING:
                raise ConfigError(
                    f"The labels of training are {shapes(labels)}, which are no probabilities: a row adds up to "
                    f"{float(sums[(sums - 1).abs().argmax()]):.3g}. Return int(label) from __getitem__, or rows that add "
                    "up to 1"
                )

    def _check_shape(self, logits: torch.Tensor, samples: int) -> None:
        """A label without a place in the logits would be found by an assertion in a GPU kernel, which names nothing."""
        if logits.shape != (samples, self._classes):
            raise ConfigError(
                f"The model answers {samples} samples with {tuple(logits.shape)} numbers, and task.classes={self._classes}"
                f" wants ({samples}, {self._classes}). Type the same number of classes for model and task"
            )

    def check(self, dataset: Dataset[Any]) -> None:
        self._names = class_names(dataset) or self._names
        labels = _whole_numbers(dataset)
        if labels is not None and labels.size:
            self._check_range(int(labels.min()), int(labels.max()), "")

    def _check_range(self, low: int, high: int, whose: str) -> None:
        if low < 0 or high >= self._classes:
            raise ConfigError(
                f"The labels{whose and ' '}{whose} run from {low} to {high}, and task.classes={self._classes} admits 0 to "
                f"{self._classes - 1}. "
                + (f"Type task.classes={high + 1}" if low >= 0 else "Give the classes numbers from 0 on")
            )


def _whole_numbers(dataset: Dataset[Any]) -> NDArray[np.integer[Any]] | None:
    """The attribute `labels`, where it is one whole number a sample; whatever else has that name is left alone."""
    try:
        found = getattr(dataset, "labels", None)
        labels = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
        of_samples = labels.shape == (len(dataset),)  # type: ignore[arg-type]
    except Exception:  # it is the user's, and may be anything
        return None
    return labels if of_samples and labels.dtype.kind in "iu" else None
