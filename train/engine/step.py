"""One optimizer step over all micro-batches, without a device synchronisation."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from ..checkpoint.preserve import ObjectState
from ..distributed.world import World
from ..evaluation.evaluate import nothing_left
from ..loading.batch import Batch, has_rows
from ..loading.loader import SampleBatch, StepBatch
from ..loading.rng import integer, seed_all
from ..optim.precision import Precision
from ..optim.updater import Updater
from ..parallel import buffers
from ..parallel.gather_features import Gatherer
from ..parallel.strategy import ParallelStrategy
from ..tasks.answer import check_count
from ..tasks.now import Now
from ..tasks.task import Ratio
from . import model_checks
from .backward import backward

_DROPOUT = 4  # separates these seeds from other uses of the run's seed


@dataclass(frozen=True)
class StepResult:
    """Results of a step on one rank: ratios of each micro-batch, and device scalars that are the same on all ranks."""

    step: int
    ratios: list[Mapping[str, Ratio]]
    norm: torch.Tensor
    skipped: torch.Tensor
    scale: torch.Tensor | None  # the loss was multiplied by it


@dataclass
class TrainStep:
    strategy: ParallelStrategy
    updater: Updater
    precision: Precision
    world: World
    seed: int
    counts_data: bool
    collates: bool  # samples, by a callable of the user's, which may leave some out
    steps: int
    phase: str | None = None
    stream: tuple[int, ...] = ()  # tells the random numbers of phases apart
    _waits: bool = False  # the task waits for other ranks in its forward
    _first: bool = True  # no step of this start was applied yet
    _modules: list[nn.Module] = field(init=False)
    _parameters: list[nn.Parameter] = field(init=False)
    _trained: list[bool] = field(init=False)
    _gatherer: Gatherer = field(init=False)

    def __post_init__(self) -> None:
        self._gatherer = Gatherer(self.world)
        self._remember()

    @property
    def gathers(self) -> bool:
        """Whether the task gathered features of all ranks in the warm-up."""
        return bool(self._gatherer.calls)

    def _remember(self) -> None:
        """What trains, and the modules whose buffers a skipped step restores."""
        model = self.strategy.model
        self._modules, self._parameters = list(model.modules()), list(model.parameters())
        self._trained = [parameter.requires_grad for parameter in self._parameters]

    def retrain(self, names: Sequence[str]) -> None:
        """Train the parameters `names` and no others from the next step on. `warm_up` follows. All ranks call it."""
        self.strategy.retrain(names)  # all ranks take part
        self._remember()

    def __call__(self, work: StepBatch) -> StepResult:
        """Forward and backward of this rank's micro-batches, one reduction, one update. All ranks call it."""
        self._tell(work.step)
        memory = ObjectState([self.strategy.module], parameters=False) if self._first else None
        self.strategy.begin_step()
        before = buffers.save_buffers(self._modules)
        ratios: list[Mapping[str, Ratio]] = []
        micro_batches = self._with_empty_ones(work)
        weight = self.world.size / work.samples  # a mean over ranks follows; what remains is the mean over samples
        for i, (position, batch) in enumerate(micro_batches):
            if batch is None and self._waits:
                raise ConfigError(nothing_left(f"step {work.step + 1}"))
            last = i == len(micro_batches) - 1
            with nullcontext() if last else self.strategy.accumulate():
                self.world.watchdog.at("forward", work.step)
                found = self._forward(position, batch)
                ratios.append({name: Ratio(ratio.total.detach(), ratio.count) for name, ratio in found.items()})
                self._check_trained(work.step)
                if last:
                    self.strategy.before_last_backward()
                    counting = self._begin_counting(ratios)
                self.world.watchdog.at("backward", work.step)
                self._backward(found["loss"].total, weight)
        self.strategy.reduce_gradients()  # all ranks take part, also one without a sample
        norm, skipped = self.updater.step(self._divisor(counting, work.samples))
        self.strategy.after_step(skipped)
        if memory is not None and skipped:
            memory.restore()  # a lazily filled table must be reset together with the Python flag that says it is filled
        else:
            before.restore_if(skipped)
            self._first = False
        scale = None if self.updater.scale is None else self.updater.scale.used
        return StepResult(work.step, ratios[: len(work.micro_batches)], norm, skipped, scale)

    def warm_up(self, sample_batch: SampleBatch) -> tuple[list[str], bool]:
        """A backward with zero gradients before a start's first step. The caller restores the model. All ranks call it.

        Two things make DDP's first backward differ in its bits from the later ones, and with it a run that was
        restarted: it rebuilds its buckets afterwards, and a ring all-reduce depends on the position within a bucket; and
        it multiplies new gradients by 1/ranks but divides those it already holds by ranks. Returns the
        metrics' names, and whether the task waits for other ranks in its forward. Raises ConfigError naming parameters
        that the loss does not reach, or a task that divides its loss by something else than it says.
        """
        self._tell(0)
        span, begun = sample_batch.span, self.world.collectives()
        with self._gatherer.active(remember=True):
            found = self._forward(span.start, sample_batch.batch)
        talks = self._waits = self.world.collectives() != begun
        if not self.collates or has_rows(sample_batch.batch, span.stop - span.start):  # a collate may leave samples out
            check_count(found["loss"].count, span.stop - span.start, counts_data=self.counts_data)
        held = self.strategy.graph_parameters()  # all ranks take part
        model_checks.check_loss_parameters(found["loss"].total, held.values(), self.strategy.module)
        with model_checks.check_layouts(held), model_checks.explain_backward():
            (found["loss"].total * 0.0).backward()  # type: ignore[no-untyped-call]
        self.strategy.after_warm_up()
        return list(found), talks

    def _with_empty_ones(self, work: StepBatch) -> list[tuple[int, Batch | None]]:
        """The micro-batches of this rank, and None for each that it takes part in without a sample."""
        forwards = work.most if self.strategy.collective_forward else 1  # at least the one whose backward reduces
        return [*work.micro_batches, *[(0, None)] * (forwards - len(work.micro_batches))]

    def try_alone(self, single: Batch) -> None:
        """A training forward of one sample, at which some models fail. The caller restores the model."""
        self._tell(0)
        with self.precision.autocast(self.world.device):
            self.strategy.module(single)

    def _tell(self, step: int) -> None:
        self.strategy.module.task.now = Now(step, self.steps, training=True, phase=self.phase)

    def _check_trained(self, step: int) -> None:
        """Raise ConfigError if requires_grad of a parameter changed: optimizer and reduction would not follow."""
        if [parameter.requires_grad for parameter in self._parameters] == self._trained:
            return
        model = self.strategy.model
        told = [
            f"{name} {'was frozen' if trained else 'began to train'}"
            for (name, parameter), trained in zip(model.named_parameters(), self._trained, strict=True)
            if parameter.requires_grad != trained
        ]
        listed = ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
        raise ConfigError(
            f"requires_grad changed in step {step + 1}: {listed}. What trains is decided once, before the first step: "
            "optimizer and reduction would not follow. Set requires_grad in the model's __init__; what is to be frozen, or "
            "to join, at a step is told by train.freeze=[{match: regex, from: 0, until: 100}]"
        )

    def _forward(self, position: int, batch: Batch | None) -> Mapping[str, Ratio]:
        seed_all(integer(self.seed, _DROPOUT, position, *self.stream), self.world.device)
        with self.precision.autocast(self.world.device), self._gathering():
            return self.strategy(batch)

    def _gathering(self) -> AbstractContextManager[None]:
        return self._gatherer.active() if self.gathers else nullcontext()

    def _backward(self, loss: torch.Tensor, weight: float) -> None:
        """A loss that is not finite sends NaN through backward, so that every rank sees it in the reduced gradient."""
        start = loss.detach().mul(0.0).add_(weight)
        if self.updater.scale is not None:
            start = start * self.updater.scale.factor
        backward(loss, start.to(loss.dtype))

    def _begin_counting(
        self, ratios: list[Mapping[str, Ratio]]
    ) -> "tuple[torch.Tensor, torch.distributed.Work | None] | None":
        """Start to sum the loss's divisor over all ranks, concurrently with the last backward."""
        if not (self.counts_data or self.collates):
            return None
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for ratio in ratios:
            total += ratio["loss"].count  # a number of the host's is added without a wait for the device
        return total, self.world.sum_on_device(total)  # all ranks take part

    def _divisor(
        self, counting: "tuple[torch.Tensor, torch.distributed.Work | None] | None", samples: int
    ) -> torch.Tensor | None:
        if counting is None:
            return None
        total, pending = counting
        if pending is not None:
            pending.wait()
        divisor = torch.where(total > 0, total, 1.0) / samples  # nothing counted: a zero gradient, no division by zero
        return divisor if self.precision.doubled else divisor.float()
