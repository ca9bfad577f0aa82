"""Whether a plain value of the config fits the annotation of the argument that takes it."""

import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Union

_NUMBERS = {int: (int,), float: (int, float)}


def fits(value: Any, annotation: Any) -> bool:
    """False where the value is surely wrong. What the annotation leaves open, or a nested `_target_`, fits."""
    if annotation is Any:  # a class itself, which isinstance refuses
        return True
    annotation = types.NoneType if annotation is None else annotation
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in options)
    if origin is typing.Literal:
        return value in options
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    kind = origin or annotation
    if not isinstance(kind, type) or kind is object or issubclass(kind, os.PathLike):
        return True
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
    if isinstance(value, list):
        return _is_sequence(kind) and all(fits(item, expected) for item, expected in _items(value, kind, options))
    return isinstance(value, kind)


def _is_sequence(kind: type) -> bool:
    return issubclass(list, kind) or (issubclass(kind, Sequence) and kind is not str)


def _items(value: list[Any], kind: type, options: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Each item with what it should be. tuple[int, str] says it for each place, list[int] for all."""
    if issubclass(kind, tuple) and options and Ellipsis not in options:
        return list(zip(value, options, strict=False))
    return [(item, options[0] if options else Any) for item in value]
