"""Named phases of a task, such as those of a GAN: each has a loss and trains parameters of its own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..loading.batch import Batch
from .answer import checked, updates
from .task import Ratio, Task


def ratios_of(task: Task, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
    """What the task makes of a batch, with `d/loss` for the loss of phase d, and "loss" for the sum over the phases."""
    if not task.phases:
        return task.ratios(model, batch)
    found: dict[str, Mapping[str, Any]] = {}
    for phase in task.phases:
        task.now = replace(task.now, phase=phase)
        found[phase] = task.ratios(model, batch)
    ratios = joined({phase: checked(answer, trains=False) for phase, answer in found.items()})
    return {**ratios, **{name: update for answer in found.values() for name, update in updates(answer).items()}}


def joined(found: Mapping[str, Mapping[str, Ratio]]) -> dict[str, Ratio]:
    """The ratios of all phases under one another's names, by phase; their losses count the same samples."""
    losses = [ratios["loss"] for ratios in found.values()]
    total = losses[0].total
    for loss in losses[1:]:
        total = total + loss.total
    each = {f"{phase}/{name}": ratio for phase, ratios in found.items() for name, ratio in ratios.items()}
    return {"loss": Ratio(total, losses[0].count), **each}
