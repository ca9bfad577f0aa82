"""One optimizer step, micro-batches and all. Nothing in it waits for the device."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from train.data.batch import Batch
from train.data.loader import Work
from train.data.split import Span
from train.gradients import Gradients
from train.optim import Updater
from train.outcome import ConfigError
from train.parallel import Spread, unused
from train.precision import Precision
from train.rng import integer, seed_all
from train.tasks.answer import check_count
from train.tasks.task import Ratio
from train.world import World

_DROPOUT = 4  # tells these seeds from those of other uses of the run's seed


@dataclass(frozen=True)
class Taken:
    """What one rank saw of a step: ratios of each of its micro-batches, and device scalars that all ranks share."""

    step: int
    ratios: list[Mapping[str, Ratio]]
    norm: torch.Tensor
    skipped: torch.Tensor
    scale: torch.Tensor | None  # the loss was multiplied by it


@dataclass(frozen=True)
class Step:
    spread: Spread
    updater: Updater
    gradients: Gradients
    precision: Precision
    world: World
    seed: int
    counts_data: bool
    statistics: list[torch.Tensor]  # what a forward changes in the model, such as BatchNorm's running mean

    def __call__(self, work: Work) -> Taken:
        """Forward and backward of this rank's micro-batches, one reduction, one update. All ranks call it."""
        before = [tensor.clone() for tensor in self.statistics]
        ratios: list[Mapping[str, Ratio]] = []
        pieces = work.pieces or [(0, None)]
        weight = self.world.size / work.samples  # DDP divides by the ranks; what remains is the mean over samples
        for i, (position, batch) in enumerate(pieces):
            last = i == len(pieces) - 1
            with nullcontext() if last else self.spread.accumulating():
                self.world.watch.at("forward", work.step)
                found = self._forward(position, batch)
                ratios.append({name: Ratio(ratio.total.detach(), ratio.count) for name, ratio in found.items()})
                counting = self._begin_counting(ratios) if last else None
                self.world.watch.at("backward", work.step)
                self._backward(found["loss"].total, weight)
        self.spread.check_reduced()
        norm, skipped = self.updater.step(self._divisor(counting, work.samples))
        self.spread.after_step(skipped)
        for tensor, kept in zip(self.statistics, before, strict=True):
            tensor.copy_(torch.where(skipped.bool(), kept, tensor))
        scale = None if self.updater.scale is None else self.updater.scale.used
        return Taken(work.step, ratios if work.pieces else [], norm, skipped, scale)

    def warm_up(self, span: Span, batch: Batch, find_unused: bool) -> list[str]:
        """A backward that counts for nothing, on the samples of `span`, before a start's first step. All ranks call it.

        Two things make DDP's first backward differ in its bits from the later ones, and with it a run that was
        restarted: it lays its buckets out anew afterwards, and a sum over ranks depends on where in a bucket a number
        stands; and it multiplies new gradients by 1/ranks but divides those it already holds by the ranks. Returns the
        metrics' names. Raises ConfigError naming parameters that the loss does not reach, or a task that divides its
        loss by something else than it says.
        """
        model = self.spread.replica.model
        buffers = [buffer.clone() for buffer in model.buffers()]
        found = self._forward(span.start, batch)
        check_count(found["loss"].count, span.stop - span.start, counts_data=self.counts_data)
        (found["loss"].total * 0.0).backward()  # type: ignore[no-untyped-call]
        bare = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        if bare and not find_unused:
            raise ConfigError(unused(bare))
        self.spread.check_reduced()
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        self.gradients.begin(wrapped=self.spread.wrapped)
        return list(found)

    def _forward(self, position: int, batch: Batch | None) -> Mapping[str, Ratio]:
        seed_all(integer(self.seed, _DROPOUT, position), self.world.device)
        with self.precision.autocast(self.world.device):
            return self.spread(batch)

    def _backward(self, loss: torch.Tensor, weight: float) -> None:
        """A loss that is not finite sends NaN through backward, so that every rank sees it in the reduced gradient."""
        start = loss.detach() * 0.0 + weight
        if self.updater.scale is not None:
            start = start * self.updater.scale.factor
        torch.autograd.backward(loss, start.to(loss.dtype))

    def _begin_counting(
        self, ratios: list[Mapping[str, Ratio]]
    ) -> "tuple[torch.Tensor, torch.distributed.Work | None] | None":
        """Add up over all ranks, beside the last backward, what the loss is to be divided by."""
        if not self.counts_data:
            return None
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for ratio in ratios:
            total += ratio["loss"].count  # a number of the host's is added without a wait for the device
        return total, self.world.sum_on_device(total)

    def _divisor(
        self, counting: "tuple[torch.Tensor, torch.distributed.Work | None] | None", samples: int
    ) -> torch.Tensor | None:
        if counting is None:
            return None
        total, pending = counting
        if pending is not None:
            pending.wait()
        divisor = torch.where(total > 0, total, 1.0) / samples  # nothing counted: a zero gradient, no division by zero
        return divisor if self.precision.weights == torch.float64 else divisor.float()


def statistics(model: torch.nn.Module) -> list[torch.Tensor]:
    """The buffers that are part of the model's state: a step that is skipped must not leave its traces there."""
    state = model.state_dict(keep_vars=True)
    return [buffer for name, buffer in model.named_buffers() if name in state]
