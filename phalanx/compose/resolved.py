"""Read and write resolved.yaml, the full config of a run, also of another version."""

import copy
import io
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper
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
    """The text of the file, as OmegaConf.to_yaml writes it, which takes three times as long: it makes a config first."""
    text: str = yaml.dump(
        escape_nested(dict(plain)),
        default_flow_style=False,
        allow_unicode=True,
        sort_keys=False,
        Dumper=get_omega_conf_dumper(),
    )
    return text


def read(path: Path) -> Config:
    """The config in the file, without resolvers. Raises ConfigError if it is missing or damaged."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    return parse(text)


def parse(text: str) -> Config:
    """The config in the text of such a file. Raises ConfigError."""
    try:
        with without_resolvers():
            found = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=True)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if not isinstance(found, dict):
        raise ConfigError("it holds a list, not keys and values")
    return to_config(migrate({str(name): value for name, value in found.items()})[0])


def migrate(stored: Mapping[str, Any], typed_keys: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """A stored config in the keys of this version, and a line for each key that was dropped.

    A missing key gets its neutral value; without one, and if no weight depends on it, the default of conf/. Unknown keys
    that were typed are kept, for the schema to report.
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
    """The values of missing keys: neutral, or conf/'s default; none for keys that a config must have."""
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
    """The mapping that holds `key`, created if missing, and the key's last part."""
    *sections, name = key.split(".")
    node: Any = plain
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else {}
    return node if isinstance(node, dict) else {}, name
