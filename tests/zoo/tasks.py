"""Tasks that are not tame: what people return from `ratios`, right or wrong, on planted samples."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio, Task


class Present(Task):
    """A metric for each class that a batch holds, so that batches differ in their metrics; some numbers are plain."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        logits = model(inputs)
        right = logits.argmax(1) == labels
        found = {"loss": Ratio(F.cross_entropy(logits, labels, reduction="sum"), len(labels))}
        for kind in labels.unique().tolist():
            found[f"right/{kind}"] = Ratio((right & (labels == kind)).sum(), (labels == kind).sum())
        found["train_only" if model.training else "eval_only"] = Ratio(right.float().sum(), len(labels))
        return found


class Contrasting(Task):
    """Tells each sample from all others of the batch: the ranks gather features in their forward (Radford et al. 2021)."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        ours, theirs = (F.normalize(model(view), dim=1) for view in (inputs, inputs.roll(1, 1)))
        offset = 0
        if dist.is_initialized() and dist.get_world_size() > 1:
            theirs = torch.cat(_Gathered.apply(theirs))
            offset = dist.get_rank() * len(ours)
        targets = torch.arange(len(ours)) + offset
        return {"loss": Ratio(F.cross_entropy(ours @ theirs.T / 0.1, targets, reduction="sum"), len(labels))}


class _Gathered(torch.autograd.Function):
    """Every rank's tensor, of one shape; gradients go back to where it came from."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor)
        return tuple(parts)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        whole = torch.stack(gradients)
        dist.all_reduce(whole)
        return whole[dist.get_rank()]


class OnTwoDevices(Classification):
    """Sums and counts that lie partly on the host, where the model may be on a GPU."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        found = super().ratios(model, batch)
        loss, right = found["loss"], found["accuracy"]
        counted = torch.full((), len(batch[1]), device=loss.total.device)
        return {"loss": loss, "accuracy": Ratio(right.total.cpu(), counted), "host": Ratio(right.total, counted.cpu())}


class Plain(Task):
    """Totals that are numbers or of shape (1,), counts that are numbers with a fraction, a tuple for a ratio."""

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        inputs, labels = batch
        logits = model(inputs)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        right = int((logits.argmax(1) == labels).sum())
        return {"loss": Ratio(loss[None], len(labels)), "accuracy": (right, float(len(labels)))}


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


# What comes of logits and labels, and what the refusal of it says.
WRONG: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], Any], str]] = {
    "nothing": (lambda logits, labels: None, "answered with nothing"),
    "a bare loss": (lambda logits, labels: _losses(logits, labels).sum(), r"a tensor of shape \(\) and float32"),
    "a loss that is no ratio": (lambda logits, labels: {"loss": _losses(logits, labels).sum()}, "loss is a tensor of"),
    "a pair by its place": (lambda logits, labels: Ratio(_losses(logits, labels).sum(), 4), "answered with a Ratio"),
    "no loss": (lambda logits, labels: {"cost": Ratio(_losses(logits, labels).sum(), 4)}, "must be called loss"),
    "a number a sample": (lambda logits, labels: {"loss": Ratio(_losses(logits, labels), 4)}, r"\.sum\(\)"),
    "a loss without its graph": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum().detach(), 4)},
        "depends on no weight",
    ),
    "a loss as a number": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum().item(), 4)},  # type: ignore[arg-type]
        "depends on no weight",
    ),
    "a complex loss": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum() * (1 + 1j), 4)},
        "real part",
    ),
    "a count that is text": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum(), "four")},  # type: ignore[arg-type]
        "count of the task's loss is a str",
    ),
    "a count a sample": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum(), torch.ones(4))},
        "count of the task's loss is a tensor of shape",
    ),
    "a name that is no text": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum(), 4), 3: Ratio(logits.sum(), 4)},
        "a metric called 3",
    ),
    "a name with an escape": (
        lambda logits, labels: {"loss": Ratio(_losses(logits, labels).sum(), 4), "\x1b[2J": Ratio(logits.sum(), 4)},
        "a metric called",
    ),
}


class Wrong(Task):
    """Answers with the member `kind` of WRONG."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def ratios(self, model: nn.Module, batch: Batch) -> Any:
        inputs, labels = batch
        answer, _ = WRONG[self._kind]
        return answer(model(inputs), labels)


class Prototypes(nn.Module):
    """A loss with weights of its own, as of metric learning."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, classes))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(features @ self.weight, labels, reduction="sum")


class Holding(Task):
    """Holds what trains, or would, in the place `kind`."""

    def __init__(self, kind: str, width: int = 4, classes: int = 3) -> None:
        loss = Prototypes(width, classes)
        self.loss = loss if kind in ("module", "teacher", "frozen") else None
        self.by_name = {"losses": [loss]} if kind == "nested" else {}
        self.scale = torch.ones((), requires_grad=True) if kind == "tensor" else 1.0
        self._kind = kind
        if kind == "frozen":
            loss.requires_grad_(False)

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        inputs, labels = batch
        logits = model(inputs)
        total = F.cross_entropy(logits, labels, reduction="sum") * self.scale
        for loss in [*self.by_name.get("losses", ()), *([] if self.loss is None else [self.loss])]:
            with torch.set_grad_enabled(self._kind != "teacher"):
                total = total + loss(inputs, labels)
        return {"loss": Ratio(total, len(labels))}
