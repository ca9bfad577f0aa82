"""Reject models that could not be trained, reduced over ranks or saved: lazy weights, sparse gradients, loose weights."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from phalanx.exit.codes import ConfigError

from ..optim.sparse_gradients import is_table
from ..parallel.loss_module import LossModule
from ..parallel.strategy import ParallelStrategy

_DEEP = 6  # how many containers within one another are searched for weights


def check_model(model: nn.Module) -> None:
    """Raise ConfigError for weights that have no shape yet."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if is_lazy(parameter):
            layer = model.get_submodule(name.rpartition(".")[0])
            raise ConfigError(
                f"The model's {name} has no shape before its first batch: it is a {type(layer).__name__}. Give the layer "
                "its number of inputs, such as nn.Linear(64, 8) for nn.LazyLinear(8): optimizer and ranks need "
                "every weight from the start"
            )


@contextmanager
def check_layouts(parameters: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Inside, a backward raises ConfigError if a gradient is sparse and not that of a layer's table, or the other way."""

    def hook_of(name: str) -> Any:
        def check(gradient: torch.Tensor) -> None:
            if (gradient.layout is torch.strided) == is_table(parameters[name]):
                raise ConfigError(_dense(name) if is_table(parameters[name]) else _sparse(name))

        return check

    trained = [(name, parameter) for name, parameter in parameters.items() if parameter.requires_grad]
    hooks = [parameter.register_hook(hook_of(name)) for name, parameter in trained]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def explain_backward() -> Iterator[None]:
    """Raise ConfigError for a backward that fails by what the task or model did before, and shows no line of theirs."""
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" in str(error):
            raise ConfigError(
                "The task went backward through its loss already. Leave loss.backward() and optimizer.step() out of it: "
                "each step does both, with what ratios() returns"
            ) from error
        if "modified by an inplace operation" in str(error):
            raise ConfigError(
                "The backward needs a tensor that the model or the task changed after it was used: "
                f"{' '.join(str(error).partition(': ')[2].partition(' Hint:')[0].split())} Look for x += y, x[…] = y, and "
                "methods that end in _, such as relu_, and write x = x + y; torch.autograd.set_detect_anomaly(True) in the "
                "task's __init__ says in which line"
            ) from error
        raise


def check_loss_parameters(loss: torch.Tensor, parameters: Iterable[torch.Tensor], module: LossModule) -> None:
    """Raise ConfigError where `loss` depends on weights outside the model, which would never be trained.

    `parameters` are the model's, as the loss's graph ends in them. Tensors that need no gradient, such as a teacher under
    torch.no_grad(), are ignored.
    """
    known = {id(parameter) for parameter in parameters}
    named = dict(_weights(vars(module.task), "the task's ", 0)) | dict(_bare(module.model))
    for leaf in _leaves(loss):
        if id(leaf) in known or not (isinstance(leaf, nn.Parameter) or id(leaf) in named):
            continue
        name = named.get(id(leaf), f"a parameter of shape {tuple(leaf.shape)}")
        raise ConfigError(
            f"The loss depends on {name}, which is no parameter of the model: nobody would train it, save it, or share "
            "its gradient between ranks. Make it part of the model: a Module that holds your model and what the loss "
            "needs, as attributes, in nn.ModuleList or as nn.Parameter, and let the task call that. Where it is not to "
            "be trained, set requires_grad_(False)"
        )


def _leaves(loss: torch.Tensor) -> Iterator[torch.Tensor]:
    """The leaf tensors that a backward from `loss` accumulates gradients in."""
    left, seen = [loss.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable
        left += [following for following, _ in node.next_functions]


def _weights(held: Any, name: str, depth: int) -> Iterator[tuple[int, str]]:
    """The trainable tensors in an attribute value, as (id, name), containers searched."""
    if isinstance(held, torch.Tensor):
        if held.requires_grad:
            yield id(held), name
    elif isinstance(held, nn.Module):
        yield from ((id(p), f"{name}.{own}") for own, p in held.named_parameters())
    elif isinstance(held, Mapping | list | tuple) and depth < _DEEP:
        items = held.items() if isinstance(held, Mapping) else enumerate(held)
        for key, item in items:
            yield from _weights(item, f"{name}{key}" if name.endswith(" ") else f"{name}.{key}", depth + 1)


def _bare(model: nn.Module) -> Iterator[tuple[int, str]]:
    """Weights in plain attributes and lists of modules, which nn.Module does not register."""
    apart = ("_parameters", "_buffers", "_modules")
    for name, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in apart}
        yield from _weights(own, f"the model's {name}." if name else "the model's ", 0)


def _sparse(name: str) -> str:
    return (
        f"The gradient of {name} is sparse, and it is no table of an nn.Embedding or nn.EmbeddingBag with "
        "sparse=True, whose rows alone are added up over ranks. Look it up by such a layer, or without sparse=True"
    )


def _dense(name: str) -> str:
    return (
        f"{name} is the table of a layer with sparse=True, and its gradient is dense: it is used otherwise, too, as where "
        "it is tied to an output layer. Make the layer with sparse=False, such as nn.Embedding(n, d)"
    )


def check_sparse(model: nn.Module, strategy: type[ParallelStrategy]) -> None:
    """Raise ConfigError where a table's gradient is sparse, and the strategy takes dense ones alone."""
    tables = [name for name, parameter in model.named_parameters() if is_table(parameter) and parameter.requires_grad]
    if tables and not strategy.sparse_gradients:
        raise ConfigError(
            f"The gradient of {tables[0]} is sparse, and {strategy.__name__} takes dense ones alone. Make the layer with "
            "sparse=False, such as nn.Embedding(n, d), or type parallel=ddp",
            agreed=True,
        )
