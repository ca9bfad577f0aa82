"""Optimizers that are not tame: each does one thing that optimizers out there do and that a trainer may break."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

Params = Iterable[Any]
Closure = Callable[[], float] | None


def _flat(params: Params) -> list[torch.Tensor]:
    """The parameters of groups, for what makes groups of its own."""
    return [p for group in params for p in (group["params"] if isinstance(group, dict) else [group])]


class Centred(torch.optim.SGD):
    """Centres matrices' gradients, in new tensors that it puts in the places of the old ones."""

    def step(self, closure: Closure = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.dim() > 1:
                    parameter.grad = parameter.grad - parameter.grad.mean()
        return super().step(closure)


class CentredInPlace(torch.optim.SGD):
    """The same, written into the gradients."""

    def step(self, closure: Closure = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.dim() > 1:
                    parameter.grad.sub_(parameter.grad.mean())
        return super().step(closure)


class Clearing(torch.optim.SGD):
    """Clears the gradients behind itself."""

    def step(self, closure: Closure = None) -> Any:
        found = super().step(closure)
        self.zero_grad()
        return found


class Noted(torch.optim.SGD):
    """Keeps what NumPy computed in its groups."""

    def step(self, closure: Closure = None) -> Any:
        for group in self.param_groups:
            group["taken"] = group.get("taken", np.int64(0)) + 1
            group["weight_decay"] = np.sqrt(0.01 / group["taken"])
        return super().step(closure)


class Two(Optimizer):
    """Muon for matrices and AdamW for the rest, whose groups it shares; its own state stays empty."""

    def __init__(self, params: Params, lr: float) -> None:
        flat = _flat(params)
        self.muon = torch.optim.Muon([p for p in flat if p.dim() == 2], lr=lr)
        self.rest = [torch.optim.AdamW([p for p in flat if p.dim() != 2], lr=lr)]
        super().__init__(flat, {"lr": lr})
        self.param_groups = self.muon.param_groups + self.rest[0].param_groups

    def step(self, closure: Closure = None) -> None:  # type: ignore[override]
        self.muon.step()  # type: ignore[no-untyped-call]
        self.rest[0].step()


class Lookahead(Optimizer):
    """Around another one: every third step goes half the way back to slow weights. Its state is all in its own hands."""

    def __init__(self, params: Params, lr: float) -> None:
        self.fast = torch.optim.Adam(params, lr=lr)
        self.slow = [p.detach().clone() for p in _flat(self.fast.param_groups)]
        self.taken = 0
        super().__init__(self.fast.param_groups, {"lr": lr})
        self.param_groups = self.fast.param_groups

    def state_dict(self) -> dict[str, Any]:
        return {"fast": self.fast.state_dict(), "slow": self.slow, "taken": self.taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.fast.load_state_dict(state_dict["fast"])
        self.param_groups = self.fast.param_groups
        for slow, found in zip(self.slow, state_dict["slow"], strict=True):
            slow.copy_(found)
        self.taken = state_dict["taken"]

    @torch.no_grad()
    def step(self, closure: Closure = None) -> None:  # type: ignore[override]
        self.fast.step()
        self.taken += 1
        if self.taken % 3 == 0:
            for slow, parameter in zip(self.slow, _flat(self.param_groups), strict=True):
                slow.lerp_(parameter, 0.5)
                parameter.copy_(slow)


class Averaging(Optimizer):
    """Without a schedule: steps at a point between the average and a walk, and has the average in its eval mode.

    After Defazio et al. 2024, with SGD inside.
    """

    def __init__(self, params: Params, lr: float, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "taken": 0, "train_mode": False})

    @torch.no_grad()
    def train(self) -> None:
        self._swap(True, lambda group: 1 - group["beta"])

    @torch.no_grad()
    def eval(self) -> None:
        self._swap(False, lambda group: 1 - 1 / group["beta"])

    def _swap(self, train_mode: bool, weight: Callable[[dict[str, Any]], float]) -> None:
        for group in self.param_groups:
            if group["train_mode"] != train_mode:
                for parameter in group["params"]:
                    if "walk" in self.state[parameter]:
                        parameter.lerp_(self.state[parameter]["walk"], weight(group))
                group["train_mode"] = train_mode

    @torch.no_grad()
    def step(self, closure: Closure = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("step() was called in eval mode")
            group["taken"] += 1
            for parameter in group["params"]:
                walk = self.state[parameter].setdefault("walk", parameter.clone())
                average = parameter.lerp(walk, 1 - 1 / group["beta"])
                walk.sub_(parameter.grad, alpha=float(group["lr"]))
                average.lerp_(walk, 1 / group["taken"])
                parameter.copy_(average.lerp(walk, 1 - group["beta"]))


class RateLess(Optimizer):
    """Signs, by a size that it calls otherwise than lr."""

    def __init__(self, params: Params, size: float) -> None:
        super().__init__(params, {"size": size})

    @torch.no_grad()
    def step(self, closure: Closure = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad.sign(), alpha=group["size"])


class Cooling(torch.optim.SGD):
    """Lowers its rate itself."""

    def step(self, closure: Closure = None) -> Any:
        found = super().step(closure)
        for group in self.param_groups:
            group["lr"] *= 0.9
        return found


class Tagged(torch.optim.AdamW):
    """A group of its own for each rate that parameters are tagged with."""

    def __init__(self, params: Params, lr: float) -> None:
        flat = _flat(params)
        scales = sorted({getattr(p, "lr_scale", 1.0) for p in flat})
        groups = [
            {"params": [p for p in flat if getattr(p, "lr_scale", 1.0) == scale], "lr": lr * scale} for scale in scales
        ]
        super().__init__(groups, lr=lr)


class Noisy(torch.optim.SGD):
    """Draws from the global generator: Langevin dynamics."""

    @torch.no_grad()
    def step(self, closure: Closure = None) -> Any:
        found = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=1e-4)
        return found


# What cannot be trained with.


class Forgetful(Optimizer):
    """Momentum that only it knows of."""

    def __init__(self, params: Params, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self._momentum: dict[torch.Tensor, torch.Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Closure = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self._momentum.setdefault(parameter, torch.zeros_like(parameter))
                momentum.mul_(0.9).add_(parameter.grad)
                parameter.sub_(momentum, alpha=group["lr"])


class Sharp(Optimizer):
    """Climbs first, and needs the loss there: a closure."""

    def __init__(self, params: Params, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Closure = None) -> None:  # type: ignore[override]
        assert closure is not None, "sharpness needs two gradients"


class Strange(torch.optim.SGD):
    """Keeps an object in its state."""

    def step(self, closure: Closure = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["generator"] = np.random.default_rng(0)
        return super().step(closure)


class Broken(torch.optim.SGD):
    """Has a bug."""

    def step(self, closure: Closure = None) -> Any:
        return self.defaults["moment"]


TRAINABLE: dict[str, dict[str, Any]] = {
    "torch.optim.ASGD": {"lr": 0.01},
    "torch.optim.Adadelta": {},
    "torch.optim.Adafactor": {"lr": 0.01},
    "torch.optim.Adamax": {"lr": 0.01},
    "torch.optim.NAdam": {"lr": 0.01},
    "torch.optim.RAdam": {"lr": 0.01},
    "torch.optim.RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.9},
    "torch.optim.Rprop": {"lr": 0.01},
    **{
        f"{__name__}.{kind.__name__}": {"lr": 0.01}
        for kind in (Centred, CentredInPlace, Clearing, Noted, Two, Lookahead, Averaging, Tagged, Noisy)
    },
    f"{__name__}.RateLess": {"size": 0.01},
    f"{__name__}.Cooling": {"lr": 0.01},
}

# What the refusal of the others says.
REFUSED: dict[str, str] = {
    "torch.optim.LBFGS": "LBFGS asks its step.* for a closure .* Type optim=adamw",
    "torch.optim.SparseAdam": "SparseAdam cannot take a step: RuntimeError: SparseAdam does not support dense gradients",
    f"{__name__}.Forgetful": "Forgetful trains on otherwise after its state was saved and loaded",
    f"{__name__}.Sharp": "Sharp asks its step.* for a closure",
    f"{__name__}.Strange": r"Strange's state\['state'\]\[0\]\['generator'\] is a Generator",
    f"{__name__}.Broken": r"Broken cannot take a step: KeyError: 'moment' \(.*optimizers.py:\d+ in step\)",
}
