"""Detect a loss that is a mean already: the same samples twice double a sum, and leave a mean unchanged."""

import logging
from collections.abc import Sequence

import torch
from torch import nn

from ..loading.batch import Batch, apply
from .answer import checked
from .phases import ratios_of
from .task import Ratio, Task

_SAMPLES = 8  # that are tried, or half of a batch
_SAME = 1e-3

logger = logging.getLogger(__name__)


def warn_of_mean(task: Task, model: nn.Module, batch: Batch, samples: int) -> None:
    """Warn where the loss's total does not grow with the samples, whether what it is divided by does or not.

    Some of `batch`, which has `samples`, are tried in eval mode, where they do not see one another, without autograd.
    Says nothing of batches that are no plain rows, nor of losses that differ from call to call. All ranks call it, as
    the task may wait for the others then. Leaves traces in the model, but no other mode.
    """
    few = min(_SAMPLES, samples // 2)
    if few < 1 or not _is_rows(batch, samples):
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    once, again, twice = [_loss(task, model, batch, rows) for rows in (range(few), range(few), [*range(few)] * 2)]
    for module, training in modes:
        module.training = training
    if once is None or again is None or twice is None or not _same(once, again) or not _same(once, twice):
        return
    logger.warning(
        "the loss looks like a mean: %d samples, and the same ones twice, have the same total of %.4g, which is then "
        "divided by %g and by %g. Return the sum over the samples, as with reduction='sum', and what divides it",
        *(few, float(once.total), float(once.count), float(twice.count)),
    )


def _loss(task: Task, model: nn.Module, batch: Batch, rows: Sequence[int]) -> Ratio | None:
    chosen = torch.tensor(rows)
    with torch.no_grad():
        try:
            few = apply(batch, lambda tensor: tensor[chosen.to(tensor.device)])
            return checked(ratios_of(task, model, few), trains=False)["loss"]
        except Exception:  # what a task makes of a few rows says nothing of whole batches
            return None


def _same(one: Ratio, other: Ratio) -> bool:
    first, second = float(one.total), float(other.total)
    return first != 0 and abs(second - first) <= _SAME * abs(first)


def _is_rows(batch: Batch, samples: int) -> bool:
    """Whether a batch is tensors alone, with a row a sample."""
    if isinstance(batch, torch.Tensor):
        return batch.dim() > 0 and len(batch) == samples
    if isinstance(batch, list | tuple | dict):
        held = batch.values() if isinstance(batch, dict) else batch
        return len(batch) > 0 and all(_is_rows(part, samples) for part in held)
    return False
