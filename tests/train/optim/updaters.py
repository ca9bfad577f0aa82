"""An updater over a small model whose gradients a test sets by hand."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from phalanx.compose.compose import compose
from phalanx.config.schema import DataConfig
from phalanx.targets.instantiate import Targets
from phalanx.train.optim.ema import Average
from phalanx.train.optim.gradients import FlatGradients
from phalanx.train.optim.group_optimizer import GroupOptimizer
from phalanx.train.optim.make_optimizers import Made as MadeOptimizers
from phalanx.train.optim.make_optimizers import make_optimizers
from phalanx.train.optim.optimizer_trial import Traits
from phalanx.train.optim.precision import LossScale
from phalanx.train.optim.updater import Updater
from phalanx.train.schedules.group_rates import TableRates
from phalanx.train.schedules.make_rates import RatesMaker, schedule_nodes
from phalanx.train.schedules.schedule import Constant, Schedule, factors

CPU = torch.device("cpu")
STEPS = 40
EPOCH = 7  # steps


@dataclass(frozen=True)
class Made:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    gradients: FlatGradients
    updater: Updater

    def step(self, gradients: Sequence[torch.Tensor], divisor: torch.Tensor | None = None) -> tuple[float, bool]:
        """One step with these gradients; returns norm and whether it was skipped."""
        for parameter, gradient in zip(trainable(self.model), gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        norm, skipped = self.updater.step(divisor)
        return float(norm), bool(skipped)

    def everything(self) -> dict[str, Any]:
        """All that a step may change, as copies."""
        average = self.updater.average
        return copy.deepcopy(
            {
                "weights": self.model.state_dict(),
                "state": self.updater.state()["optimizer"]["state"],
                "applied": self.updater.applied,
                "average": None if average is None else average.weights,
            }
        )


def small_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).to(dtype)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def make(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: Schedule | None = None,
    clip_norm: float | None = None,
    scale: LossScale | None = None,
    decay: float | None = None,
    device: torch.device = CPU,
    on_device: bool = True,
) -> Made:
    gradients = FlatGradients(trainable(model), find_unused=False)
    gradients.begin(wrapped=False)
    average = None if decay is None else Average(model.parameters(), decay)
    groups = optimizer.param_groups
    table = factors(Constant(0) if schedule is None else schedule, STEPS)
    rates = TableRates(groups, [float(group["lr"]) for group in groups], table)
    traits = Traits(inner=False, own_rate=False)
    updater = Updater(
        [GroupOptimizer(optimizer, traits, [rates], ["rest"] * len(groups))],
        gradients,
        clip_norm=clip_norm,
        scale=scale,
        average=average,
        device=device,
        on_device=on_device,
    )
    return Made(model, optimizer, gradients, updater)


def drawn(model: nn.Module, step: int) -> list[torch.Tensor]:
    """Gradients for `step`, which are of the size of one."""
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in trainable(model)]


def spoiled(gradients: list[torch.Tensor], value: float = float("nan")) -> list[torch.Tensor]:
    """The same with one number replaced."""
    spoilt = [gradient.clone() for gradient in gradients]
    spoilt[-1].flatten()[-1] = value
    return spoilt


def equal(one: Any, other: Any) -> bool:
    """Whether two nests of dicts, lists and tensors hold the same bits."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def take_six_steps(one: Made, *, disturbed: Made) -> None:
    """The same six steps of both; `disturbed` has to skip four others, two of them before its very first one."""
    for step in range(6):
        if step in (0, 3):
            disturbed.step(spoiled(drawn(one.model, 100)))
            disturbed.step(spoiled(drawn(one.model, 101), float("inf")))
        one.step(drawn(one.model, step))
        disturbed.step(drawn(one.model, step))


@cache
def data_config() -> DataConfig:
    return compose([]).config.data


def made_optimizers(
    model: nn.Module, optim: Mapping[str, Any], schedule: Mapping[str, Any] | None = None, steps: int = STEPS
) -> MadeOptimizers:
    """The optimizers of a run over `model`, by the sections `optim` and `schedule` of its config."""
    builder = Targets((LRScheduler,), None)
    aliases: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    chosen = {"_target_": "phalanx.schedules.Constant", "warmup_steps": 0} if schedule is None else schedule
    for node, where, kind, given in schedule_nodes(chosen, "schedule"):
        builder.check(node, where, kind, given)
    rates = RatesMaker(builder, data_config(), steps, lambda step: step // EPOCH)
    return make_optimizers(optim, chosen, builder, model, list(model.named_parameters()), aliases, rates)


def updater_of(
    model: nn.Module,
    optim: Mapping[str, Any],
    schedule: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    *,
    on_device: bool = False,
) -> Made:
    """An updater over `model` as train/engine/parts/steps.py makes one."""
    gradients = FlatGradients(trainable(model), find_unused=False)
    gradients.begin(wrapped=False)
    found = made_optimizers(model, optim, schedule, steps)
    updater = Updater(
        found.optimizers, gradients, clip_norm=1.0, scale=None, average=None, device=CPU, on_device=on_device
    )
    return Made(model, found.optimizers[0].optimizer, gradients, updater)
