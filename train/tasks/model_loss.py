"""Models that compute their loss themselves."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from ..loading.batch import Batch
from .model_answer import call, part, rows_of, told
from .task import Ratio, Task

IGNORED = -100  # a label that torch's cross entropy leaves out


class Count(Enum):
    """What the model's loss is a mean over."""

    samples = "samples"
    labels = "labels"  # those of batch["labels"] that are not IGNORED
    shifted_labels = "shifted_labels"  # of those all but the first of each sample, as of a causal language model


class ModelLoss(Task):
    """The loss that the model's answer holds, a mean, as models of transformers and torchvision's detectors give it.

    A batch that is a dict is passed by keyword, one that is a list or a tuple by position. The loss is `loss` of a dict or
    an object, the answer itself where that is one number, the first of a tuple, or else the sum of all numbers of a dict,
    each also told by its own name; `weights` are factors of these, 1 where it names none.

    `count` says what the loss is a mean over, so that it comes out the same however a batch is split: "samples", or
    "labels" of a model that averages over tokens, or "shifted_labels" of a causal one. `metrics` are of torchmetrics, each
    updated with the answer's `logits` and the batch's `labels`.
    """

    def __init__(
        self,
        count: str = "samples",
        weights: Mapping[str, float] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        if count not in Count.__members__:
            raise ConfigError(f"task.count={count} is none of {', '.join(Count.__members__)}. Type task.count=samples")
        self._count = Count[count]
        self.counts_data = self._count is not Count.samples  # type: ignore[misc]  # of this one
        self._weights = dict(weights or {})
        self._metrics = dict(metrics or {})

    def metrics(self) -> Mapping[str, Any]:
        return self._metrics

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        answer = call(model, batch)
        losses = losses_of(answer)
        if unknown := sorted(self._weights.keys() - losses.keys()):
            raise ConfigError(
                f"task.weights names {unknown[0]}, and the model's losses are {', '.join(losses)}. Type one of them"
            )
        count = self._number(batch)
        total = torch.stack([self._weights.get(name, 1.0) * in_full(loss) for name, loss in losses.items()]).sum()
        found: dict[str, Any] = {"loss": Ratio(total * count, count)}
        if list(losses) != ["loss"]:
            found |= {name: Ratio(loss.detach() * count, count) for name, loss in losses.items() if name != "loss"}
        return found if model.training else {**found, **self._updates(answer, batch)}

    def _updates(self, answer: Any, batch: Batch) -> dict[str, Any]:
        from .metric import Update

        return {name: Update(part(answer, "logits"), part(batch, "labels")) for name in self._metrics}

    def _number(self, batch: Batch) -> Any:
        if self._count is Count.samples:
            return rows_of(batch)
        labels = part(batch, "labels")
        if not isinstance(labels, torch.Tensor):
            raise ConfigError(
                f"task.count={self._count.name} counts the labels of a batch, and the data give {told(batch)} without any. "
                "Type task.count=samples"
            )
        counted = labels[:, 1:] if self._count is Count.shifted_labels else labels
        return (counted != IGNORED).sum()


def losses_of(answer: Any) -> dict[str, torch.Tensor]:
    """The losses in a model's answer, single numbers by name. Raises ConfigError where there are none."""
    if (loss := part(answer, "loss")) is not None:
        answer = loss
    elif isinstance(answer, list | tuple) and answer:
        answer = answer[0]
    if _is_number(answer):
        return {"loss": answer}
    found = {str(name): value for name, value in answer.items()} if isinstance(answer, Mapping) else {}
    if not found or not all(map(_is_number, found.values())):
        raise ConfigError(
            f"The model answers with {told(answer)}, and no loss is in it. Pass the labels that it computes one from, or "
            "type task._target_= and a task of your own"
        )
    return found


def in_full(loss: torch.Tensor) -> torch.Tensor:
    """The number in 32 bits or more: what half precision has computed is not added up in it."""
    return loss.reshape(()).to(torch.promote_types(loss.dtype, torch.float32))


def _is_number(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1 and value.is_floating_point()
