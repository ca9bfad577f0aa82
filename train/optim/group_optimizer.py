"""One of a run's optimizers, with the rates of its groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..schedules.group_rates import GroupRates
from . import optimizer_state
from .optimizer_trial import Traits


class GroupOptimizer:
    """An optimizer of some of the parameters, and the `rates` of its groups.

    `names` are those of its groups, in their order; groups of one name differ in nothing but weight decay.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, traits: Traits, rates: Sequence[GroupRates], names: Sequence[str]
    ) -> None:
        self.optimizer = optimizer
        self.rates = rates
        self.fused = _takes_a_skip(optimizer)
        self._traits = traits
        self._names = {id(group): name for group, name in zip(optimizer.param_groups, names, strict=True)}
        optimizer_state.train(optimizer)
        if self.fused:
            _prime(optimizer)

    def named_rates(self, applied: int, taken: int) -> Iterator[tuple[str, float | None]]:
        """Name and learning rate of each group, in their order."""
        found = {
            id(group): rates.rate(i, applied, taken) for rates in self.rates for i, group in enumerate(rates.groups)
        }
        for group in self.optimizer.param_groups:
            rate = found[id(group)]
            own = group.get("lr") if rate is None else rate
            yield self._names[id(group)], None if own is None else float(own)

    def step(self, divisor: torch.Tensor | None, skipped: torch.Tensor | None) -> None:
        """Step with the gradients. Fused kernels divide them by `divisor` and leave all as it is where `skipped` is 1."""
        if self.fused:
            self.optimizer.grad_scale = None if divisor is None else divisor.float()  # type: ignore[attr-defined]
            if skipped is not None:
                self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return optimizer_state.of(self.optimizer, self._traits.inner)

    def load(self, state: Mapping[str, Any]) -> None:
        optimizer_state.load(self.optimizer, state)


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
