"""Another value for each key of the config, found by its type and limits in the schema."""

import dataclasses
import typing
from enum import Enum
from types import NoneType, UnionType
from typing import Any

from phalanx.config.schema import Config, schema


def annotations(section: type = Config, path: str = "") -> dict[str, tuple[Any, ...]]:
    """The types that each leaf admits, by its dotted key."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            found |= annotations(kind, f"{path}{name}.")  # type: ignore[arg-type]
        else:
            union = isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union
            found[f"{path}{name}"] = typing.get_args(kind) if union else (kind,)
    return found


def other(key: str, value: Any) -> Any:
    """A value that the schema admits for `key` and that is not `value`."""
    (kind,) = [kind for kind in annotations()[key] if kind is not NoneType][:1]
    leaf = schema()[key]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(member for member in kind if member is not value)
    if kind is bool:
        return not value
    if kind in (int, float):
        low = (0 if leaf.low is None else leaf.low) + (0.5 if leaf.above else 0)
        candidates = (low, low + 1, min(leaf.high, low + 2))
        return next(kind(found) for found in candidates if found != value)
    if kind is str:
        return "other"
    if typing.get_origin(kind) is list:
        return ["other"]
    return {**(value or {"_target_": "a.b"}), "other": 1}


def with_value(config: Config, key: str, value: Any) -> Config:
    section, _, name = key.rpartition(".")
    if not section:
        return dataclasses.replace(config, **{name: value})
    node: Any = config
    for part in section.split("."):
        node = getattr(node, part)
    return with_value(config, section, dataclasses.replace(node, **{name: value}))


def word(key: str, value: Any) -> str:
    """What is typed to set `key` to `value`."""
    text = value.name if isinstance(value, Enum) else str(value).lower() if isinstance(value, bool) else value
    return f"{key}={'null' if text is None else '[' + ','.join(text) + ']' if isinstance(text, list) else text}"
