"""Tell, as JSON, what torch's optimizers do before and after this process imports torch._dynamo."""

import json
import sys
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from phalanx.train.engine.parts.deferred_dynamo import defer_dynamo

_MAKER = "_use_grad_for_differentiable"
_ALONE = ("SparseAdam", "LBFGS", "Optimizer")  # whose step asks for other gradients, or calls a closure
NAMES = sorted(
    name for name, found in vars(torch.optim).items() if isinstance(found, type) and issubclass(found, Optimizer)
)


def methods() -> dict[str, FunctionType]:
    """All methods of torch's optimizers, of which none was made yet."""
    return {
        f"{name}.{method}": value
        for name in NAMES
        for method, value in vars(getattr(torch.optim, name)).items()
        if isinstance(value, FunctionType)
    }


def called_without_dynamo(found: Mapping[str, FunctionType]) -> list[str]:
    """The methods that torch would keep torch.compile off, and that are called as they are."""
    wrapped = {name: getattr(method, "__wrapped__", None) for name, method in found.items()}
    return [name for name, own in wrapped.items() if own and vars(own).get("__dynamo_disable") is own]


def trained(name: str) -> list[float]:
    """A weight after three steps, and one of an optimizer that goes on from their state."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.rand(4, 4, dtype=torch.float64))
    first, second = (getattr(torch.optim, name)([weight], lr=0.1) for _ in range(2))
    for _ in range(3):
        first.zero_grad()
        weight.pow(2).sum().backward()  # type: ignore[no-untyped-call]
        first.step()
    second.load_state_dict(first.state_dict())
    weight.pow(3).sum().backward()  # type: ignore[no-untyped-call]
    second.step()
    values: list[float] = weight.detach().flatten().tolist()
    return values


def compiled() -> list[float]:
    """The weight after two steps of which all is compiled: forward, backward and optimizer."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.5)

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        (weight * x).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    run: Callable[[torch.Tensor], None] = torch.compile(step, backend="eager")
    run(torch.ones(3))
    run(torch.ones(3))
    values: list[float] = weight.tolist()
    return values


def main() -> None:
    found, told = methods(), dict[str, Any]()  # now, as torch._dynamo puts others in the place of some
    codes = {name: method.__code__ for name, method in found.items()}

    def changed() -> list[str]:
        return [name for name, method in found.items() if method.__code__ is not codes[name]]

    made = vars(sys.modules["torch.optim.optimizer"])
    known, made[_MAKER] = made[_MAKER], _other
    defer_dynamo()
    told["steps of another version"] = changed()
    made[_MAKER] = known
    defer_dynamo()
    told["steps"], told["called"] = changed(), called_without_dynamo(found)
    plain = {name: trained(name) for name in NAMES if name not in _ALONE}
    told["imported"] = sorted({"torch._dynamo", "sympy"} & {*sys.modules})
    told["compiled"] = compiled()
    told["steps still"], told["called still"] = changed(), called_without_dynamo(found)
    told["trained otherwise"] = [name for name, weight in plain.items() if trained(name) != weight]
    print(json.dumps({**told, "trained": sorted(plain)}))


def _other(func: Callable[..., object]) -> Callable[..., object]:
    def _use_grad(*args: Any, **kwargs: Any) -> object:
        return func(*args, **kwargs)

    return _use_grad


if __name__ == "__main__":
    main()
