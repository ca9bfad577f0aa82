"""Save and load an optimizer's state as plain values, with that of optimizers that it wraps."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from phalanx.exit.codes import ConfigError

_EXACT = (np.bool_, np.integer, np.float64)  # of NumPy's numbers, those that Python's own hold to the last bit
_PLAIN = (torch.Tensor, bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)

# What the fused kernels of torch take, each of the parameter's own shape but the count of steps.
_SHAPED = {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}
_OLDER = "Set that checkpoint aside to continue from an older one"


def of(optimizer: Optimizer, inner: bool) -> dict[str, Any]:
    """The state of `optimizer` and, with `inner`, of those that it holds. Raises ConfigError naming what is no value."""
    found: dict[str, Any] = _plain(optimizer.state_dict(), f"{type(optimizer).__name__}'s state")
    if inner:
        found["inner"] = [of(held, inner=False) for held in within(optimizer)]
    return found


def load(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `of` returned."""
    own = {name: value for name, value in state.items() if name != "inner"}
    _load(optimizer, own)
    for held, found in zip(within(optimizer), state.get("inner", ()), strict=False):
        _load(held, found)


def within(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizers in its attributes, in order."""
    return list(dict.fromkeys(_held(list(vars(optimizer).values()))))


def train(optimizer: Optimizer) -> None:
    """Call train() of an optimizer that has modes, such as schedule-free ones."""
    if has_modes(optimizer):
        optimizer.train()  # type: ignore[attr-defined]


def has_modes(optimizer: Optimizer) -> bool:
    """Whether the weights are others in an evaluation, where its eval() puts them in place."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def _load(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """The groups stay the same objects: an optimizer around this one, or within it, may hold them, too."""
    _check_shapes(optimizer, state)
    before = [(held, list(held.param_groups)) for held in (optimizer, *within(optimizer))]
    optimizer.load_state_dict(dict(state))
    for held, groups in before:
        if len(groups) == len(held.param_groups):
            for kept, found in zip(groups, held.param_groups, strict=True):
                kept.update(found)
            with suppress(AttributeError):  # a property that looks them up in another optimizer
                held.param_groups = groups


def _check_shapes(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Raise ConfigError for what a kernel would read past its end: fused ones look at no shape but the parameter's."""
    if "fused" not in optimizer.defaults:  # one without such a kernel may keep them in any shape
        return
    try:
        indices = [index for group in state["param_groups"] for index in group["params"]]
        kept = [dict(state["state"].get(index, {})) for index in indices]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"The state of {type(optimizer).__name__} cannot be read: {error!r}. {_OLDER}") from None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, facts in zip(parameters, kept, strict=False):  # torch itself compares how many there are
        for name in _SHAPED & facts.keys():
            value = facts[name]
            if isinstance(value, torch.Tensor) and not _fits(name, value, parameter):
                raise ConfigError(
                    f"{name} in the state of {type(optimizer).__name__} is {tuple(value.shape)}, of a parameter that is "
                    f"{tuple(parameter.shape)}. {_OLDER}"
                )


def _fits(name: str, value: torch.Tensor, parameter: torch.Tensor) -> bool:
    if name == "step":
        return value.numel() == 1
    return value.layout == torch.strided and value.shape == parameter.shape


def _held(values: list[Any]) -> Iterator[Optimizer]:
    for value in values:
        if isinstance(value, Optimizer):
            yield value
            yield from within(value)
        elif isinstance(value, list | tuple):
            yield from _held(list(value))
        elif isinstance(value, dict):
            yield from _held([item for key, item in value.items() if key != "state"])


def _plain(value: Any, where: str) -> Any:
    """`value` with NumPy's numbers as Python's. Raises ConfigError for what a file would not give back."""
    if isinstance(value, np.generic):
        if not isinstance(value, _EXACT):
            raise ConfigError(f"{where} is a {type(value).__name__}. Keep a float, or a tensor, in its place")
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {_plain(key, where): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_plain(item, f"{where}[…]") for item in value)
    raise ConfigError(
        f"{where} is a {type(value).__name__}, which a checkpoint could save and no restart could load. Keep tensors, "
        "numbers and texts there"
    )
