"""Check plain data against the schema, with one message for what does not fit."""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Union

from ..common.suggest import nearest
from ..exit.codes import ConfigError
from .annotations import fits
from .overrides import shown, typed_for
from .schema import Config, Node

_MISSING = "???"  # Hydra's mark of a value that must be given
_KINDS = {
    int: ("a whole number", "1"),
    float: ("a number", "1.0"),
    bool: ("true or false", "true"),
    str: ("text", "text"),
    list[str]: ("a list of texts", "[a,b]"),
    list[Node]: ("a list of rules", "[{match: regex}]"),
    list[list[str]]: ("a list of pairs of texts", "[[a,b]]"),
    dict[str, str]: ("texts by name", "{a:b}"),
}
_NODE = ("a group of keys with a _target_", "{_target_:package.module.Class}")


def to_config(plain: Mapping[str, Any], words: Sequence[str] = ()) -> Config:
    """The Config of plain data. Raises ConfigError naming the key, with the value as `words` typed it."""
    config: Config = section(Config, plain, "", words)
    return config


def text_keys() -> set[str]:
    """The keys whose values are strings, also where they look like numbers."""
    options = {key: _options(annotation) for key, annotation in _keys(Config, "")}
    return {key for key, its in options.items() if str in its and int not in its}


def unknown_key_message(key: str, known: Sequence[str], hint: str = "") -> str:
    """The message for a key that the config does not have."""
    return f"{key} is not a key of the config. {nearest(key, known)}{hint}Type --cfg job to see all keys."


def section(kind: type, plain: Any, path: str, words: Sequence[str]) -> Any:
    """The dataclass `kind` of plain data, whose keys begin with `path`. Raises ConfigError naming the key."""
    hints = typing.get_type_hints(kind)
    for name in plain:
        if name not in hints:
            known = [key for key, _ in _keys(Config, "")] + [f"{path}{hint}" for hint in hints]
            own = f"As an argument of {path}_target_ type +{path}args.{name}=…. " if "args" in hints else ""
            raise ConfigError(unknown_key_message(f"{path}{name}", known, own))
    return kind(**{name: _value(hint, plain, name, path, words) for name, hint in hints.items()})


def _value(annotation: Any, plain: Mapping[str, Any], name: str, path: str, words: Sequence[str]) -> Any:
    key, value = f"{path}{name}", plain.get(name, _MISSING)
    if value == _MISSING:
        none = f", or {key}=null for none" if type(None) in _options(annotation) else ""
        raise ConfigError(f"{key} has no value and must have one. Type {key}=… with its value{none}")
    if is_dataclass(annotation) and isinstance(value, Mapping):
        return section(annotation, value, f"{key}.", words)  # type: ignore[arg-type]
    for option in _options(annotation):
        if _is_enum(option) and isinstance(value, str) and value in option.__members__:
            return option[value]
        if fits(value, option):
            return float(value) if option is float else value
    raise ConfigError(_misfit(annotation, key, value, words))


def _misfit(annotation: Any, key: str, value: Any, words: Sequence[str]) -> str:
    text = typed_for(key, words)
    told = f"{key}={shown(value) if text is None else text}"
    if is_dataclass(annotation):
        keys = ", ".join(name for name, _ in _keys(annotation, f"{key}."))  # type: ignore[arg-type]
        return f"{told} takes the place of a group of keys. Type one of them: {keys}"
    kinds = [_kind(option) for option in _options(annotation)]
    whole = isinstance(value, float) and value.is_integer() and int in _options(annotation)  # 1e3, 64.0
    example = int(value) if whole else kinds[0][1]
    return f"{told} does not fit: {key} is {' or '.join(kind for kind, _ in kinds)}. Type {key}={example}"


def _kind(option: Any) -> tuple[str, str]:
    """What a value must be, and an example."""
    if option is types.NoneType:
        return "null", "null"
    if _is_enum(option):
        names = list(option.__members__)
        return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1], names[0]
    return _KINDS.get(option, _NODE)


def _keys(section: type, path: str) -> Iterator[tuple[str, Any]]:
    """Every key of the schema with its annotation."""
    for name, annotation in typing.get_type_hints(section).items():
        yield f"{path}{name}", annotation
        if is_dataclass(annotation):
            yield from _keys(annotation, f"{path}{name}.")  # type: ignore[arg-type]


def _options(annotation: Any) -> tuple[Any, ...]:
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is Union
    return typing.get_args(annotation) if union else (annotation,)


def _is_enum(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, Enum)
