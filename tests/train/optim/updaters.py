"""An updater over a small model whose gradients a test sets by hand."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from phalanx.train.optim.ema import Average
from phalanx.train.optim.gradients import FlatGradients
from phalanx.train.optim.optimizer_trial import Traits
from phalanx.train.optim.precision import LossScale
from phalanx.train.optim.schedule import Constant, Schedule
from phalanx.train.optim.updater import Updater

CPU = torch.device("cpu")
STEPS = 40


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
    updater = Updater(
        optimizer,
        gradients,
        Constant(0) if schedule is None else schedule,
        STEPS,
        traits=Traits(inner=False, own_rate=False),
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
