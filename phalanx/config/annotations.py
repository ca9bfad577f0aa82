"""Check a plain config value against an argument's annotation, and convert it.

YAML has no enums, dtypes, paths, tuples or tensors. What is annotated as one is spelt as text or as a list:
`IMAGENET1K_V1`, `torch.bfloat16`, `data/digits`, `[3, 3]`, `[0.2, 0.8]`.

Neither pydantic nor typeguard does it: pydantic takes `true` and "1" for an int, or strictly no list for a tuple, knows an
enum by its values alone, makes an iterator of an Iterable and refuses Python 3.11's TypedDict; typeguard converts nothing
and takes `true` for an int. Both would need a hook for each kind below, and at each level one for a nested `_target_`.
"""

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from decimal import Decimal, InvalidOperation
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any, Union

_NUMBERS = {int: (int,), float: (int, float)}
_FROM_TEXT = (complex, Decimal, Fraction, PurePath)
_EXAMPLES = {int: "1", float: "0.1", bool: "true", str: "text", types.NoneType: "null"}
_DTYPE, _DEVICE, _TENSOR, _ARRAY = "torch.dtype", "torch.device", "torch.Tensor", "numpy.ndarray"
_OPEN_CONFIG = ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")


class MisfitError(ValueError):
    """A value that is surely wrong."""


def fits(value: Any, annotation: Any) -> bool:
    """False if the value is surely wrong. An open annotation, or a nested `_target_`, fits."""
    try:
        as_annotated(value, annotation)
    except MisfitError:
        return False
    return True


def as_annotated(value: Any, annotation: Any) -> Any:
    """`value` converted to what `annotation` asks for; unchanged if it is open or fits already. Raises MisfitError."""
    if isinstance(value, Mapping) and "_target_" in value:
        return value
    if annotation is Any:  # a class itself, which isinstance refuses
        return _dtype(value) or value if isinstance(value, str) and value.startswith("torch.") else value
    annotation = types.NoneType if annotation is None else annotation
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return _as_one_of(value, options)
    if origin is typing.Literal:
        return _if(value in options, value)
    kind = origin or annotation
    if not isinstance(kind, type) or kind is object or _is_protocol(kind):
        return value
    if _named(kind) in _OPEN_CONFIG:
        return _if(isinstance(value, Mapping if kind.__name__ == "DictConfig" else list), value)
    if isinstance(value, Mapping):
        return _mapping(value, kind, options)
    if isinstance(value, list):
        return _sequence(value, kind, options)
    return _scalar(value, kind)


def example(annotation: Any) -> str:
    """An example of what to type for an argument of this annotation."""
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(example(option) for option in options))
    if origin is typing.Literal:
        return ", ".join(map(str, options))
    kind = origin or annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(kind.__members__)
    if kind in _EXAMPLES:
        return _EXAMPLES[kind]
    if _named(kind) in (_DTYPE, _DEVICE):
        return "torch.float32" if _named(kind) == _DTYPE else "cpu"
    if not isinstance(kind, type) or issubclass(kind, os.PathLike):
        return "text"
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return "{" + ", ".join(f"{name}: {example(hint)}" for name, hint in typing.get_type_hints(kind).items()) + "}"
    is_dict = issubclass(dict, kind) or kind.__name__ == "DictConfig"
    if is_dict or _named(kind) in (_TENSOR, _ARRAY) or _is_list(kind):
        return "{a: 1}" if is_dict else "[1, 2]"
    partial = ", _partial_: true" if kind in (type, Callable) else ""
    return "{_target_: package.module.Class" + partial + "}"


def is_open_config(annotation: Any) -> bool:
    """Whether it asks for a DictConfig or ListConfig of OmegaConf, which `as_annotated` leaves for the caller to make."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return any(is_open_config(option) for option in typing.get_args(annotation))
    return _named(annotation) in _OPEN_CONFIG


def _as_one_of(value: Any, options: Sequence[Any]) -> Any:
    """As the first option that takes it unchanged, else the first that takes it."""
    taken = []
    for option in options:
        try:
            taken.append(as_annotated(value, option))
        except MisfitError:
            continue
        if taken[-1] is value:
            return value
    _if(bool(taken), value)
    return taken[0]


def _mapping(value: Mapping[str, Any], kind: type, options: tuple[Any, ...]) -> Any:
    if typing.is_typeddict(kind):
        _if(kind.__required_keys__ <= value.keys(), value)  # type: ignore[attr-defined]
        return _keyed(value, kind)
    if dataclasses.is_dataclass(kind):
        try:
            return kind(**_keyed(value, kind))
        except TypeError:
            raise MisfitError(f"{value} has not what {kind.__name__} needs") from None
    _if(isinstance(value, kind), value)
    return {name: as_annotated(item, options[1] if len(options) == 2 else Any) for name, item in value.items()}


def _keyed(value: Mapping[str, Any], kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    _if(value.keys() <= hints.keys(), value)
    return {name: as_annotated(item, hints[name]) for name, item in value.items()}


def _sequence(value: list[Any], kind: type, options: tuple[Any, ...]) -> Any:
    if _named(kind) in (_TENSOR, _ARRAY):
        return _numbers(value, kind)
    _if(_is_list(kind), value)
    if issubclass(kind, tuple) and options and Ellipsis not in options:  # tuple[int, str]: each place has its own
        expected = list(options) if len(options) == len(value) else [Any] * len(value)
    else:
        expected = [options[0] if options else Any] * len(value)
    items = [as_annotated(item, hint) for item, hint in zip(value, expected, strict=True)]
    plain = not any(isinstance(item, Mapping) for item in items)
    return kind(items) if kind in (tuple, set, frozenset) and (plain or kind is tuple) else items


def _scalar(value: Any, kind: type) -> Any:
    if kind in _NUMBERS:
        return _if(isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool), value)
    if isinstance(value, kind):
        return value
    if issubclass(kind, Enum):
        return _member(value, kind)
    if _named(kind) == _DTYPE:
        return _if((found := _dtype(value)) is not None, value) and found
    if _named(kind) in (_TENSOR, _ARRAY):
        return _numbers(value, kind)
    if _named(kind) == _DEVICE or issubclass(kind, _FROM_TEXT):
        return _made(kind, _if(isinstance(value, str), value))
    return _if(issubclass(kind, os.PathLike), value)


def _member(value: Any, kind: type[Enum]) -> Enum:
    """By its name, with the class's before it or without, or by its value."""
    name = value.removeprefix(f"{kind.__name__}.") if isinstance(value, str) else value
    return kind.__members__[name] if name in kind.__members__ else _made(kind, value)


def _dtype(value: Any) -> Any:
    import torch  # here, for what reads a config on a login node has none

    found = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else None
    return found if isinstance(found, torch.dtype) else None


def _numbers(value: Any, kind: type) -> Any:
    if _named(kind) == _ARRAY:
        import numpy as np

        return np.asarray(value)
    import torch

    return _made(torch.tensor, value)


def _made(make: Callable[[Any], Any], value: Any) -> Any:
    try:
        return make(value)
    except (ValueError, TypeError, RuntimeError, InvalidOperation):
        raise MisfitError(f"{value} is none") from None


def _if(fit: bool, value: Any) -> Any:
    if not fit:
        raise MisfitError(f"{value} does not fit")
    return value


def _is_list(kind: type) -> bool:
    """Whether a list may stand for it: list, tuple, set, and what these are in general."""
    return issubclass(list, kind) or (issubclass(kind, Sequence | Set) and kind is not str)


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _named(kind: Any) -> str:
    """The class's full name: torch is not imported to compare by it."""
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
