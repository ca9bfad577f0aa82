"""One class a sample."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from train.data.batch import Batch
from train.outcome import ConfigError
from train.tasks.task import Ratio, Task


class Classification(Task):
    """Cross entropy in nats a sample, and accuracy. A batch is (inputs, labels), labels (b,) within 0..classes-1."""

    def __init__(self, classes: int, label_smoothing: float) -> None:
        if classes < 2:
            raise ConfigError(f"task.classes={classes} leaves nothing to tell apart. It must be at least 2")
        self._classes = classes
        self._label_smoothing = label_smoothing

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        logits = model(inputs)
        self._check_shape(logits, len(labels))
        loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self._label_smoothing)
        correct = (logits.argmax(1) == labels).sum()
        return {"loss": Ratio(loss, len(labels)), "accuracy": Ratio(correct, len(labels))}

    def _check_shape(self, logits: object, samples: int) -> None:
        """A label without a place in the logits would be found by an assertion in a GPU kernel, which names nothing."""
        if not isinstance(logits, torch.Tensor):
            raise ConfigError(
                f"The model answers with a {type(logits).__name__}, and this task wants a tensor of shape ({samples}, "
                f"{self._classes}). Type task._target_= and a task of your own, which takes what the model gives"
            )
        if logits.shape != (samples, self._classes):
            raise ConfigError(
                f"The model answers {samples} samples with {tuple(logits.shape)} numbers, and task.classes={self._classes}"
                f" wants ({samples}, {self._classes}). Type the same number of classes for model and task"
            )

    def check(self, dataset: Dataset[Any]) -> None:
        labels = getattr(dataset, "labels", None)
        if labels is None or not len(labels):
            return
        low, high = int(torch.as_tensor(labels).min()), int(torch.as_tensor(labels).max())
        if low < 0 or high >= self._classes:
            raise ConfigError(
                f"The labels run from {low} to {high}, and task.classes={self._classes} admits 0 to "
                f"{self._classes - 1}. Type task.classes={high + 1}"
            )
