"""resolved.yaml: the full config as a file that reads back to the same values, also to another version than wrote it."""

import copy
import io
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..common.escaping import escape_nested, without_resolvers
from ..common.files import read_text
from ..common.redaction import REDACTED
from ..config.check import to_config
from ..config.moved_names import with_current_names
from ..config.schema import Config, Kind, Leaf, Neutral, schema
from ..exit.codes import ConfigError
from .hydra_api import hydra_composer


def to_yaml(plain: Mapping[str, Any]) -> str:
    """The text of the file."""
    return OmegaConf.to_yaml(OmegaConf.create(escape_nested(dict(plain))))


def read(path: Path) -> Config:
    """The config in the file, in which nothing is looked up. Raises ConfigError that says why it is none."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    return parse(text)


def parse(text: str) -> Config:
    """The same of the text of such a file."""
    try:
        with without_resolvers():
            found = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if not isinstance(found, dict):
        raise ConfigError("it holds a list, not keys and values")
    return to_config(migrate({str(name): value for name, value in found.items()})[0])


def migrate(stored: Mapping[str, Any], typed_keys: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """What another version stored, in the keys of this one, and a line for each key that it has no place for.

    A key that the stored config lacks means what it meant before there was one; where the schema does not say what that
    was and no weight depends on it, the default of conf/ holds. What was typed is left for the schema to judge.
    """
    keys, plain = schema(), with_current_names(copy.deepcopy(dict(stored)))
    lost = [
        key
        for key in _unknown_keys(plain, "", keys)
        if not any(f"{word}.".startswith(f"{key}.") for word in typed_keys)
    ]
    for key in lost:
        section, name = _section(plain, key)
        del section[name]
    for key, value in _neutral_values({key: leaf for key, leaf in keys.items() if not _has(plain, key)}).items():
        section, name = _section(plain, key)
        section[name] = value
    return plain, [f"{key} is no key of this version and is left out" for key in lost]


def redacted_keys(plain: Any, path: str = "") -> Iterator[str]:
    """The dotted keys whose text shows [redacted]."""
    if isinstance(plain, Mapping | list):
        for name, value in plain.items() if isinstance(plain, Mapping) else enumerate(plain):
            yield from redacted_keys(value, f"{path}.{name}" if path else str(name))
    elif isinstance(plain, str) and REDACTED in plain:
        yield path


def missing_keys(plain: Mapping[str, Any]) -> list[str]:
    """The keys of the schema that a stored config does not have."""
    return [key for key in schema() if not _has(plain, key)]


def _neutral_values(lacking: Mapping[str, Leaf]) -> dict[str, Any]:
    """What the keys that a stored config lacks mean; nothing for those that it must have."""
    found = {key: leaf.neutral for key, leaf in lacking.items() if leaf.neutral is not Neutral.none}
    open_keys = [key for key, leaf in lacking.items() if key not in found and leaf.kind is not Kind.defining]
    if open_keys:
        with hydra_composer(None, None) as composer:
            defaults = composer(["~experiment"]).plain
        for key in open_keys:
            section, name = _section(defaults, key)
            found[key] = section[name]
    return found


def _unknown_keys(plain: Mapping[str, Any], path: str, keys: Collection[str]) -> Iterator[str]:
    for name, value in plain.items():
        key = f"{path}{name}"
        if any(known.startswith(f"{key}.") for known in keys) and isinstance(value, Mapping):
            yield from _unknown_keys(value, f"{key}.", keys)
        elif key not in keys and not any(known.startswith(f"{key}.") for known in keys):
            yield key


def _has(plain: Mapping[str, Any], key: str) -> bool:
    section, name = _section(plain, key)
    return name in section


def _section(plain: Mapping[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Where the value of `key` stands, or would stand, and under which name."""
    *sections, name = key.split(".")
    node: Any = plain
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else {}
    return node if isinstance(node, dict) else {}, name
