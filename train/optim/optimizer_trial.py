"""Try an optimizer on copies before training: whether it steps, and whether its state survives save and load."""

import copy
import inspect
import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from . import optimizer_state
from .sparse_gradients import is_table

_SAME = 1e-3  # the largest relative difference of two moves that are the same; one without momentum differs by far more
_EACH = 2  # parameters of a kind that stand for all

Group = dict[str, Any]


@dataclass(frozen=True)
class Traits:
    """`inner`: optimizers that it wraps are saved, too; `own_rate`: its step() changes the rate itself."""

    inner: bool
    own_rate: bool


def try_optimizer(make: Callable[[list[Group]], Optimizer], groups: Sequence[Group]) -> Traits:
    """Two steps of `make`'s optimizer, and the second repeated after save and load. `groups` are not changed.

    Raises ConfigError if a step fails, or if the repeated step differs: state was lost.
    """
    few = _few(groups)
    devices = {parameter.device for group in few for parameter in group["params"]}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
        return _try_twice(make, few)


def _try_twice(make: Callable[[list[Group]], Optimizer], few: list[Group]) -> Traits:
    one = _made(make, few)
    _check_closure(one)
    rates = _rates(one)
    _step(one, few, seed=1)
    own_rate = _rates(one) != rates
    states = {inner: copy.deepcopy(optimizer_state.of(one, inner)) for inner in (False, True)}
    between = _copies(few)
    moved = _second_step(one, few, own_rate)
    for inner, state in states.items():
        again = _copies(between)
        other = _made(make, again)
        _load(other, _through_a_file(state, _name(one)))
        if _same(moved, _second_step(other, again, own_rate)):
            return Traits(inner, own_rate)
    raise ConfigError(
        f"{_name(one)} trains on otherwise after its state was saved and loaded: it remembers something that its "
        "state_dict() does not hold, and every restart would lose that. Keep it in self.state or in the groups, or "
        "override state_dict and load_state_dict"
    )


def _made(make: Callable[[list[Group]], Optimizer], groups: list[Group]) -> Optimizer:
    _seed(0)
    return make(groups)


def _seed(seed: int) -> None:
    """As torch.manual_seed, which formats the stack several times where no GPU was used yet."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)


def _few(groups: Sequence[Group]) -> list[Group]:
    """Copies of the smallest parameters of each kind, in the same groups."""
    found = []
    for group in groups:
        kinds: dict[object, list[torch.Tensor]] = {}
        for parameter in sorted(group["params"], key=torch.Tensor.numel):
            kinds.setdefault((parameter.dim(), parameter.dtype, repr(vars(parameter))), []).append(parameter)
        chosen = {id(parameter) for of_kind in kinds.values() for parameter in of_kind[:_EACH]}
        found.append({**group, "params": [p for p in group["params"] if id(p) in chosen]})
    return _copies(found)


def _copies(groups: Sequence[Group]) -> list[Group]:
    return [{**group, "params": [_copied(parameter) for parameter in group["params"]]} for group in groups]


def _copied(parameter: torch.Tensor) -> torch.nn.Parameter:
    """With the attributes that its author set on it, such as a rate of its own."""
    made = torch.nn.Parameter(parameter.detach().clone(memory_format=torch.preserve_format))
    vars(made).update(vars(parameter))
    return made


def _step(optimizer: Optimizer, groups: Sequence[Group], seed: int) -> None:
    _seed(seed)
    for group in groups:
        for parameter in group["params"]:
            gradient = torch.randn_like(parameter) * 1e-2
            parameter.grad = gradient.to_sparse(1) if is_table(parameter) else gradient
    try:
        optimizer_state.train(optimizer)
        optimizer.step()
    except (ConfigError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, AssertionError) or "closure" in str(error):
            raise ConfigError(_needs_closure(optimizer)) from error
        line = user_error.user_line(error)
        raise ConfigError(
            f"{_name(optimizer)} cannot take a step: {' '.join(user_error.message(error).split())}"
            f"{f' ({line})' if line else ''}. Tried on copies of the weights; nothing was trained{_sparse_hint(groups)}"
        ) from error


def _sparse_hint(groups: Sequence[Group]) -> str:
    kinds = {is_table(parameter) for group in groups for parameter in group["params"]}
    if True not in kinds:
        return ""
    return (
        ". The gradient of an nn.Embedding(sparse=True) takes an optimizer of its own: type "
        "+optim.groups=[{match: embedding, optimizer: {_target_: torch.optim.SparseAdam, lr: 0.001}}] with a match for "
        "its table"
    )


def _second_step(optimizer: Optimizer, groups: Sequence[Group], own_rate: bool) -> list[torch.Tensor]:
    """The moves of a step at half the rate, which has to reach the optimizer where a schedule would set it."""
    before = [parameter.detach().clone() for group in groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        if not own_rate and isinstance(group.get("lr"), float):
            group["lr"] /= 2
    _step(optimizer, groups, seed=2)
    after = [parameter.detach() for group in groups for parameter in group["params"]]
    return [new - old for new, old in zip(after, before, strict=True)]


def _same(moves: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    differences = [torch.linalg.vector_norm(a - b) for a, b in zip(moves, others, strict=True)]
    sizes = [torch.linalg.vector_norm(move) for move in moves]
    return all(not d > _SAME * s for d, s in zip(differences, sizes, strict=True))


def _through_a_file(state: Mapping[str, Any], whose: str) -> Mapping[str, Any]:
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        found: Mapping[str, Any] = torch.load(file, weights_only=True)
    except (pickle.PicklingError, pickle.UnpicklingError, RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{whose} has a state that cannot be saved and loaded without running code: "
            f"{str(error).splitlines()[0]}. Keep tensors, numbers and texts there"
        ) from None
    return found


def _load(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    try:
        optimizer_state.load(optimizer, state)
    except Exception as error:
        raise ConfigError(
            f"{_name(optimizer)} cannot load what it saved: {' '.join(user_error.message(error).split())}. A restart "
            "would end there; nothing was trained"
        ) from error


def _rates(optimizer: Optimizer) -> list[object]:
    rates = [group.get("lr") for group in optimizer.param_groups]
    return [float(rate) if isinstance(rate, torch.Tensor) else rate for rate in rates]


def _check_closure(optimizer: Optimizer) -> None:
    try:
        parameters = inspect.signature(optimizer.step).parameters.values()
    except ValueError:  # written in C
        return
    if any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise ConfigError(_needs_closure(optimizer))


def _needs_closure(optimizer: Optimizer) -> str:
    return (
        f"{_name(optimizer)} asks its step() for a closure that computes the loss anew, as often as it likes. Here a "
        "step has one gradient, which all ranks share. Type optim=adamw, or another that steps by one gradient"
    )


def _name(optimizer: Optimizer) -> str:
    return f"The optimizer {type(optimizer).__name__}"
