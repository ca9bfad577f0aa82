"""Hold a composed config against the schema, and say in a person's words what does not fit."""

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from train.config import Config
from train.escape import all_escaped
from train.nearest import nearest
from train.outcome import ConfigError
from train.overrides import typed_for

_KINDS = {
    int: ("a whole number", "1"),
    float: ("a number", "1.0"),
    bool: ("true or false", "true"),
    str: ("text", "text"),
}


def typed(plain: Mapping[str, Any], words: Sequence[str] = ()) -> Config:
    """The Config that `plain` spells out. Raises ConfigError naming the key, with the value as `words` typed it."""
    for name, annotation in _sections():
        if not isinstance(plain.get(name), Mapping):
            raise ConfigError(_no_section(name, annotation, plain, words))
    try:
        merged = OmegaConf.merge(_schema(), OmegaConf.create(all_escaped(dict(plain))))
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"{missing[0]} has no value yet and must be given. Type {missing[0]}=…")
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error, plain, words)) from None
    assert isinstance(config, Config)
    return config


def texts() -> set[str]:
    """The keys whose values are text."""
    return {
        name
        for name, annotation in _keys(Config, "")
        if str in _options(annotation) and int not in _options(annotation)
    }


def _keys(section: type, path: str) -> Iterator[tuple[str, Any]]:
    """Every key of the schema with its annotation."""
    for name, annotation in typing.get_type_hints(section).items():
        yield f"{path}{name}", annotation
        if is_dataclass(annotation):
            yield from _keys(annotation, f"{path}{name}.")  # type: ignore[arg-type]


def _sections() -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(Config)
    return [(name, hint) for name, hint in hints.items() if is_dataclass(hint) or typing.get_origin(hint) is dict]


def _schema() -> DictConfig:
    """The schema with every section laid out and writable: OmegaConf makes nodes of frozen dataclasses read-only."""
    schema: DictConfig = OmegaConf.structured(Config)
    OmegaConf.set_readonly(schema, False)
    for entry in fields(Config):
        if is_dataclass(entry.type):
            schema[entry.name] = OmegaConf.structured(entry.type)
            OmegaConf.set_readonly(schema[entry.name], None)
    return schema


def _no_section(name: str, annotation: Any, plain: Mapping[str, Any], words: Sequence[str]) -> str:
    if name not in plain:
        return f"{name} is not in the config. Begin from conf/config.yaml, or add what {name} needs"
    keys = (
        [f"{name}.{entry.name}" for entry in fields(annotation)] if is_dataclass(annotation) else [f"{name}._target_"]
    )
    return f"{_shown(name, plain[name], words)} takes the place of a group of keys. Type one of them: {', '.join(keys)}"


def _explain(error: OmegaConfBaseException, plain: Mapping[str, Any], words: Sequence[str]) -> str:
    key = str(error.full_key or "")
    known = dict(_keys(Config, ""))
    if key.partition("[")[0] not in known:
        return unknown(key, list(known))
    value = OmegaConf.select(OmegaConf.create(all_escaped(dict(plain))), key)
    kind, example = _kind(known[key.partition("[")[0]])
    return f"{_shown(key, value, words)} does not fit: {key} is {kind}. Type {key.partition('[')[0]}={example}"


def unknown(key: str, known: Sequence[str]) -> str:
    """The message for a key that the config does not have."""
    return f"{key} is not a key of the config. {nearest(key, known)}Type --cfg job to see all keys."


def _shown(key: str, value: Any, words: Sequence[str]) -> str:
    """The key with its value as typed, or as the config holds it."""
    text = typed_for(key, words)
    plain = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key}={plain if text is None else text}"


def _options(annotation: Any) -> tuple[Any, ...]:
    return (
        typing.get_args(annotation)
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is Union
        else (annotation,)
    )


def _kind(annotation: Any) -> tuple[str, str]:
    """What a value must be, and an example."""
    kinds = [_single(option) for option in _options(annotation)]
    return " or ".join(kind for kind, _ in kinds), kinds[0][1]


def _single(option: Any) -> tuple[str, str]:
    if option is type(None):
        return "null", "null"
    if isinstance(option, type) and issubclass(option, Enum):
        names = [member.name for member in option]
        return f"one of {', '.join(names)}", names[0]
    if option in _KINDS:
        return _KINDS[option]
    if typing.get_origin(option) is list:
        return "a list of texts", "[a,b]"
    return "a group of keys", "{}"
