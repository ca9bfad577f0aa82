"""How a task calls its model: the tensors that go in and come out by name, around them whatever else the call holds."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from phalanx.exit.codes import ConfigError

LABELS = "labels"  # an argument by which models of transformers compute a loss; nobody has it at prediction
BATCH, LENGTH = "batch", "length"

Dims = tuple[int | str, ...]


@dataclass(frozen=True)
class Call:
    """One call of a model. Arguments that have a name are in `keywords`, in the order of its forward."""

    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    answer: Any

    def inputs(self) -> dict[str, torch.Tensor]:
        return _tensors((list(self.positional), self.keywords), "")

    def outputs(self) -> dict[str, torch.Tensor]:
        """By names that no input has: ONNX knows a tensor by its name alone."""
        taken = self.inputs()
        return {
            f"{name}_out" if name in taken else name: found for name, found in _tensors(self.answer, "output").items()
        }


@dataclass(frozen=True)
class CallForm:
    """The form that all calls of a task have: names of the tensors, and what stands beside and around them.

    `shapes` and `answers` give each dimension a number, or a name where it varies. `without_labels`: the model is called
    without the labels that the task passes, and answers without the loss.
    """

    inputs: Mapping[str, torch.dtype]
    outputs: Mapping[str, torch.dtype]
    arguments: Any  # the structure of (positional, keywords), as pytree.TreeSpec
    others: tuple[Any, ...]  # its leaves, None for a tensor
    answer: Any
    beside: tuple[Any, ...]  # the leaves of the answer, None for a tensor
    without_labels: bool
    shapes: Mapping[str, Dims] = field(default_factory=dict)
    answers: Mapping[str, Dims] = field(default_factory=dict)

    def taken(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
        """The tensors of a call by name; None where it has another form."""
        positional, keywords = bound(model, args, kwargs)
        if self.without_labels:
            keywords.pop(LABELS, None)
        leaves, spec = pytree.tree_flatten((list(positional), keywords))
        if spec != self.arguments or [_beside(leaf) for leaf in leaves] != list(self.others):
            return None
        return dict(zip(self.inputs, (leaf for leaf in leaves if isinstance(leaf, torch.Tensor)), strict=True))

    def call(self, model: Callable[..., Any], inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The model's answer to tensors by name, by name."""
        left = iter(inputs[name] for name in self.inputs)
        leaves = [next(left) if other is None else other.value for other in self.others]
        positional, keywords = pytree.tree_unflatten(leaves, self.arguments)
        found = [leaf for leaf in pytree.tree_leaves(model(*positional, **keywords)) if isinstance(leaf, torch.Tensor)]
        return dict(zip(self.outputs, found, strict=True))

    def answered(self, outputs: Mapping[str, torch.Tensor]) -> Any:
        """The tensors in the structure in which the model answers."""
        left = iter(outputs[name] for name in self.outputs)
        leaves = [next(left) if other is None else other.value for other in self.beside]
        return pytree.tree_unflatten(leaves, self.answer)


@dataclass(frozen=True)
class _Constant:
    """A leaf that is no tensor, such as None or a number."""

    value: Any


class Flat(nn.Module):
    """The model as a module that takes tensors by name and answers with tensors by name, in `dtype` where that is set.

    What goes in and comes out has the dtypes of the trained model all the same.
    """

    def __init__(self, model: nn.Module, form: CallForm, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model

        def forward(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            if dtype is not None:
                inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}
            found = form.call(model, inputs)
            return found if dtype is None else {name: x.to(form.outputs[name]) for name, x in found.items()}

        # The names in the signature: torch.export writes guards in terms of them.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in form.inputs])  # type: ignore[attr-defined]
        self.forward = forward


@contextmanager
def recorded(model: nn.Module, limit: int | None = None) -> Iterator[list[Call]]:
    """Inside, the calls of the model's forward are kept, the first `limit` ones."""
    calls: list[Call] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        if limit is None or len(calls) < limit:
            calls.append(Call(*bound(model, args, kwargs), answer))

    handle = model.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Models of transformers that generate answer with a cache, too, which only their own loop takes."""
    settings: Any = getattr(model, "config", None)
    if getattr(settings, "use_cache", None) is not True:
        yield
        return
    settings.use_cache = False
    try:
        yield
    finally:
        settings.use_cache = True


def bound(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, by name where the forward names them."""
    try:
        parameters = inspect.signature(model.forward).parameters
        found = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # a forward that nobody can look into
        return tuple(args), dict(kwargs)
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    by_position = any(kinds[name] is inspect.Parameter.VAR_POSITIONAL for name in found)
    for name, value in found.items():
        if kinds[name] is inspect.Parameter.VAR_POSITIONAL:
            positional += value
        elif kinds[name] is inspect.Parameter.VAR_KEYWORD:
            keywords |= value
        elif kinds[name] is inspect.Parameter.POSITIONAL_ONLY or (
            by_position and kinds[name] is not inspect.Parameter.KEYWORD_ONLY
        ):
            positional.append(value)
        else:
            keywords[name] = value
    return tuple(positional), {name: keywords[name] for name in keywords if name not in ("self",)}


def form_of(call: Call, *, without_labels: bool) -> CallForm:
    """The form of a call. Raises ConfigError where its answer holds what no runtime gives."""
    leaves, arguments = pytree.tree_flatten((list(call.positional), call.keywords))
    given, answer = pytree.tree_flatten(call.answer)
    inputs, outputs = call.inputs(), call.outputs()
    if not inputs:
        raise ConfigError(
            "The task calls the model without a tensor, or with tensors inside objects that torch.export cannot look into. "
            "Pass tensors, or dicts, lists and tuples of them"
        )
    if unknown := [leaf for leaf in given if not isinstance(leaf, torch.Tensor | int | float | str | bool | None)]:
        raise ConfigError(
            f"The model answers with a {type(unknown[0]).__name__}, which no other runtime can give. Return a tensor, or a "
            "dict, a list or a tuple of tensors"
        )
    return CallForm(
        {name: tensor.dtype for name, tensor in inputs.items()},
        {name: tensor.dtype for name, tensor in outputs.items()},
        arguments,
        tuple(map(_beside, leaves)),
        answer,
        tuple(map(_beside, given)),
        without_labels,
    )


def dims_of(calls: Sequence[Mapping[str, torch.Tensor]], sizes: Sequence[int]) -> dict[str, Dims]:
    """Of each tensor its dimensions: a number where it is the same in all `calls`, else the name of what it is.

    `sizes` are the samples of the first calls. Dimensions that vary alike have one name.
    """
    varying: dict[tuple[int, ...], str] = {}
    found: dict[str, Dims] = {}
    for name in calls[0]:
        dims: list[int | str] = []
        for i, first in enumerate(calls[0][name].shape):
            seen = tuple(call[name].shape[i] for call in calls)
            if len(set(sizes)) > 1 and seen[: len(sizes)] == tuple(sizes):
                dims.append(BATCH)
            elif len(set(seen)) == 1:
                dims.append(first)
            else:
                dims.append(varying.setdefault(seen, f"{LENGTH}_{len(varying)}" if varying else LENGTH))
        found[name] = tuple(dims)
    return found


def _beside(leaf: Any) -> _Constant | None:
    return None if isinstance(leaf, torch.Tensor) else _Constant(leaf)


def _tensors(value: Any, alone: str) -> dict[str, torch.Tensor]:
    """The tensors within a structure by their paths, such as `logits` or `output_0`; `alone` where the path is empty."""
    found: dict[str, torch.Tensor] = {}
    for path, leaf in pytree.tree_flatten_with_path(value)[0]:
        if isinstance(leaf, torch.Tensor):
            words = [_word(key) for key in path]
            words = words[1:] if alone == "" else words  # positional or keywords
            name = "_".join(words) or alone
            found[name if name.isidentifier() else f"{alone or 'input'}_{name}"] = leaf
    return found


def _word(key: Any) -> str:
    held = getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))
    return "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in str(held))
