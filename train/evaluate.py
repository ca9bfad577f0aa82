"""Exact metrics over any number of ranks: every sample once, none padded, the same bits however many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import nn

from train.data.batch import apply
from train.data.loader import Fetcher
from train.data.prefetch import Mover
from train.data.split import Span
from train.precision import Precision
from train.rng import integer, seed_all
from train.tasks.task import Task
from train.world import World

_EVALUATE = 5  # tells these seeds from those of other uses


@dataclass(frozen=True)
class Evaluation:
    """Evaluates on `samples` samples in batches of `batch`, which are dealt to the ranks in turn."""

    fetcher: Fetcher
    samples: int
    batch: int
    task: Task
    precision: Precision
    mover: Mover

    def __call__(self, model: nn.Module, names: Sequence[str], world: World) -> dict[str, float]:
        """The metrics `names` of `model`. All ranks call it with equal weights and buffers.

        Sums and counts of each batch are kept apart until all ranks' are together and then added in the batches' order.
        What a model draws in an evaluation is decided by the batch's number.
        """
        batches = ceil(self.samples / self.batch)
        mine = range(world.rank, batches, world.size)
        spans = (Span(i * self.batch, min((i + 1) * self.batch, self.samples)) for i in mine)
        training = model.training
        model.eval()
        with torch.inference_mode(), self.precision.autocast(world.device):
            rows = []
            for number, batch in zip(mine, self.fetcher.batches(spans), strict=True):
                seed_all(integer(_EVALUATE, number), world.device)
                rows.append(self._row(model, names, batch))
                world.watch.on()
        model.train(training)
        table = torch.zeros(batches, len(names), 2, dtype=torch.float64)
        if rows:
            table[list(mine)] = torch.stack(rows).cpu()
        totals = world.sum(table).cumsum(0)[-1]
        return {name: float(total / count) for name, (total, count) in zip(names, totals, strict=True)}

    def _row(self, model: nn.Module, names: Sequence[str], batch: object) -> torch.Tensor:
        ratios = self.task.ratios(model, apply(batch, self.mover))
        device = ratios["loss"].total.device
        cells = [_scalar(cell, device) for name in names for cell in ratios[name]]
        return torch.stack(cells).view(len(names), 2)


def _scalar(cell: torch.Tensor | int, device: torch.device) -> torch.Tensor:
    """In float64 on the device; a number of the host's is filled in there, without a wait."""
    if isinstance(cell, torch.Tensor):
        return cell.double()
    return torch.full((), cell, dtype=torch.float64, device=device)
