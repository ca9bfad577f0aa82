"""Optimizer steps: learning rates, clipping, and skipping of gradients that are not finite."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from phalanx.config.metric_direction import Results

from .ema import Average
from .gradients import Gradients
from .group_optimizer import GroupOptimizer
from .precision import LossScale

_CLIP_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class Updater:
    """Steps the optimizers: one clipping over all, and one decision on a skip.

    `applied` counts, on the device, the steps that were not skipped; `taken`, on the host, all of the run. Learning rate
    and average depend on `applied`, so the host need not know of a skip: with `on_device` fused optimizers decide it in
    their kernels. Otherwise the host reads the norm: free on a CPU, one synchronisation a step on a GPU with an optimizer
    that is not fused.
    """

    def __init__(
        self,
        optimizers: Sequence[GroupOptimizer],
        gradients: Gradients,
        *,
        clip_norm: float | None,
        scale: LossScale | None,
        average: Average | None,
        device: torch.device,
        on_device: bool,
    ) -> None:
        self.optimizers = optimizers
        self.scale = scale
        self.average = average
        self.applied = torch.zeros((), dtype=torch.int64, device=device)
        self.taken = 0
        self._rates = [rates for each in optimizers for rates in each.rates]
        self._gradients = gradients
        self._clip_norm = clip_norm
        self._fused = all(each.fused for each in optimizers)
        self._on_device = on_device and self._fused and all(rates.on_device for rates in self._rates)
        self._exact = gradients.exact
        # Fused kernels on GPUs read the rate as float32.
        self._rate_dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._place_rates()

    def rates(self, applied: int, taken: int) -> dict[str, float | None]:
        """The learning rates of the step that follows `applied` ones that were not skipped, of `taken` in all.

        "lr" is the first group's, None where it has none; those of other names are "lr/<name>".
        """
        found: dict[str, float | None] = {}
        for each in self.optimizers:
            for name, rate in each.named_rates(applied, taken):
                found.setdefault(name, rate)
        first, *others = found
        return {"lr": found[first], **{f"lr/{name}": found[name] for name in others}}

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
        self.taken += 1
        self._gradients.zero()
        if self.average is not None:
            self.average.update(self.applied, skipped)
        if self.scale is not None:
            self.scale.update(skipped)
        return norm, skipped

    def _on_the_device(self, norm: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        skipped = (norm * 0.0).nan_to_num(nan=1.0).float()  # infinity times zero is NaN, too
        for rates in self._rates:
            rates.set_on_device(self.applied, self.taken)
        self._apply(divisor, skipped)
        self.applied += 1 - skipped.long()
        return skipped

    def _on_the_host(self, norm: torch.Tensor, divisor: torch.Tensor | None) -> torch.Tensor:
        if not math.isfinite(norm):
            return torch.ones((), device=norm.device)
        applied = int(self.applied)
        for rates in self._rates:
            rates.set(applied, self.taken)
        self._apply(divisor, None)
        self.applied += 1
        return torch.zeros((), device=norm.device)

    def _apply(self, divisor: torch.Tensor | None, skipped: torch.Tensor | None) -> None:
        if divisor is not None and (self._exact or not self._fused):  # the kernels' own divisor is float32
            self._gradients.divide(divisor)
            divisor = None
        for each in self.optimizers:
            each.step(divisor, skipped)

    def evaluated(self, results: Results) -> None:
        """After an evaluation, whose results are the same on all ranks, so that all take the same decision."""
        for rates in self._rates:
            rates.evaluated(results)

    def _place_rates(self) -> None:
        if self._on_device:
            for rates in self._rates:
                rates.place(self.applied.device, self._rate_dtype)

    def state(self) -> dict[str, Any]:
        """Everything a restart needs, tensors on the device."""
        applied = int(self.applied)
        schedules = [rates.state(applied, self.taken) for rates in self._rates]
        first, *others = (each.state() for each in self.optimizers)
        return {
            "optimizer": first,
            **({"optimizers": others} if others else {}),
            **({"schedules": schedules} if any(schedules) else {}),
            "applied": self.applied,
            "scale": None if self.scale is None else self.scale.state(),
        }

    def load(self, state: Mapping[str, Any], taken: int) -> None:
        """Restore what `state` returned after `taken` steps."""
        found = [state["optimizer"], *state.get("optimizers", ())]
        for each, its in zip(self.optimizers, found, strict=True):
            each.load(its)
        self.applied.copy_(state["applied"])
        self.taken = taken
        if self.scale is not None and state["scale"] is not None:
            self.scale.load(state["scale"])
        for rates, its in zip(self._rates, state.get("schedules", [None] * len(self._rates)), strict=True):
            rates.load(its)
        self._place_rates()
