"""Optimizer steps: parameter groups, learning rate, clipping, and skipping of gradients that are not finite."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from . import optimizer_state
from .ema import Average
from .gradients import Gradients
from .optimizer_trial import Traits
from .precision import LossScale
from .schedule import Factors, Schedule, factors

_CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def groups(parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, decay_1d: bool) -> list[dict[str, Any]]:
    """Parameter groups of the trainable weights. Without `decay_1d`, no weight decay on biases and norm weights."""
    named = [(name, p) for name, p in parameters if p.requires_grad]
    if not named:
        raise ConfigError("The model has no parameter to train: none requires a gradient")
    for name, parameter in named:
        if not _dense(parameter):
            raise ConfigError(f"The parameter {name} has gaps or overlaps in memory. Make it with .contiguous()")
    trainable = [parameter for _, parameter in named]
    if decay_1d or not weight_decay:
        return [{"params": trainable}]
    return [
        {"params": [p for p in trainable if p.dim() > 1]},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill their memory without gaps, in any order, so that a copy keeps the strides."""
    return tensor.stride() == torch.empty_like(tensor, device="meta").stride()


class Updater:
    """Steps the optimizer.

    `applied` counts, on the device, the steps that were not skipped. Learning rate and average depend on that count, so
    the host need not know of a skip: with `on_device` fused optimizers decide it in their kernels. Otherwise the host reads
    the norm: free on a CPU, one synchronisation a step on a GPU with an optimizer that is not fused.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        gradients: Gradients,
        schedule: Schedule,
        steps: int,
        *,
        traits: Traits,
        clip_norm: float | None,
        scale: LossScale | None,
        average: Average | None,
        device: torch.device,
        on_device: bool,
    ) -> None:
        self.optimizer = optimizer
        self.scale = scale
        self.average = average
        self.applied = torch.zeros((), dtype=torch.int64, device=device)
        self._gradients = gradients
        self._clip_norm = clip_norm
        self._fused = _takes_a_skip(optimizer)
        self._on_device = on_device and self._fused
        self._exact = gradients.exact
        # Fused kernels on GPUs read the rate as float32.
        self._rate_dtype = torch.float32 if device.type == "cuda" else torch.float64
        optimizer_state.train(optimizer)
        self._traits = traits
        self._rates = _rates(optimizer, factors(schedule, steps), traits)
        if self._fused:
            _prime(optimizer)
        if self._on_device:
            self._device_rates = [
                None if rates is None else torch.from_numpy(rates).to(device, self._rate_dtype) for rates in self._rates
            ]
            self._place_rates()

    def rate(self, applied: int) -> float | None:
        """The first group's learning rate for the step that follows `applied` ones; None where it has none of ours."""
        rates = self._rates[0]
        if rates is not None:
            return float(rates[applied])
        own = self.optimizer.param_groups[0].get("lr")
        return None if own is None else float(own)

    def step(self, divisor: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the gradients, which are still to be divided by `divisor` (None for 1), and clear them.

        Returns device scalars: the norm of the divided gradient before clipping, and 1.0 where the step was skipped
        because that norm is not finite, else 0.0.
        """
        if self.scale is not None:
            divisor = self.scale.factor if divisor is None else divisor * self.scale.factor
        norm = self._gradients.norm()  # all ranks take part where each holds a part of it
        if divisor is not None:
            norm = norm / divisor
        if self._clip_norm is not None:
            excess = torch.clamp((norm + _CLIP_EPS) / self._clip_norm, min=1.0)
            divisor = excess if divisor is None else divisor * excess
        skipped = self._on_the_device(norm, divisor) if self._on_device else self._on_the_host(norm, divisor)
        self._gradients.zero()
        if self.average is not None:
            self.average.update(self.applied, skipped)
        if self.scale is not None:
            self.scale.update(skipped)
        return norm, skipped

    def _on_the_device(self, norm: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        skipped = (norm * 0.0).nan_to_num(nan=1.0).float()  # infinity times zero is NaN, too
        for group, rates in zip(self.optimizer.param_groups, self._device_rates, strict=True):
            if rates is not None:
                torch.take(rates, self.applied, out=group["lr"])
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self._apply(divisor)
        self.applied += 1 - skipped.long()
        return skipped

    def _on_the_host(self, norm: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        if not math.isfinite(norm):
            return torch.ones((), device=norm.device)
        applied = int(self.applied)
        for group, rates in zip(self.optimizer.param_groups, self._rates, strict=True):
            if rates is not None:
                group["lr"] = float(rates[applied])
        self._apply(divisor)
        self.applied += 1
        return torch.zeros((), device=norm.device)

    def _apply(self, divisor: torch.Tensor | None) -> None:
        if divisor is not None and (self._exact or not self._fused):  # the kernels' own divisor is float32
            self._gradients.divide(divisor)
            divisor = None
        if self._fused:
            self.optimizer.grad_scale = None if divisor is None else divisor.float()  # type: ignore[attr-defined]
        self.optimizer.step()

    def _place_rates(self) -> None:
        """Give every group a rate that lives on the device, for the kernels to read and steps to overwrite."""
        for group, rates in zip(self.optimizer.param_groups, self._rates, strict=True):
            if rates is not None:
                group["lr"] = torch.zeros((), dtype=self._rate_dtype, device=self.applied.device)

    def state(self) -> dict[str, Any]:
        """Everything a restart needs, tensors on the device."""
        return {
            "optimizer": optimizer_state.of(self.optimizer, self._traits.inner),
            "applied": self.applied,
            "scale": None if self.scale is None else self.scale.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        optimizer_state.load(self.optimizer, state["optimizer"])
        self.applied.copy_(state["applied"])
        if self.scale is not None and state["scale"] is not None:
            self.scale.load(state["scale"])
        if self._on_device:
            self._place_rates()


def _rates(optimizer: torch.optim.Optimizer, factors: Factors, traits: Traits) -> "list[Factors | None]":
    """Every group's rates, step by step; None for one whose rate is none of the schedule's. Raises ConfigError."""
    constant = bool((factors[:-1] == 1.0).all())
    peaks = [group.get("lr") for group in optimizer.param_groups]
    if (traits.own_rate or all(peak is None for peak in peaks)) and not constant:
        why = "changes its rate itself in its step()" if traits.own_rate else "has no rate, lr, in its groups"
        raise ConfigError(
            f"The optimizer {type(optimizer).__name__} {why}, so there is nothing for the schedule to set. "
            "Type schedule=constant schedule.warmup_steps=0"
        )
    return [None if peak is None or traits.own_rate else factors * float(peak) for peak in peaks]


def _takes_a_skip(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the kernels support a skip (found_inf). Not SGD with dampening, which counts a skipped step as its first."""
    dampened = any(group.get("dampening") for group in optimizer.param_groups)
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and not dampened


def _prime(optimizer: torch.optim.Optimizer) -> None:
    """SGD's fused kernel leaves the momentum uninitialised when its very first step is skipped, and takes all or none."""
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            if group["momentum"] and group["fused"]:
                for parameter in group["params"]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
