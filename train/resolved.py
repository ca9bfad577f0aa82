"""resolved.yaml: the full config as a file that reads back to the same values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from train.config import Config
from train.escape import all_escaped, nothing_looked_up
from train.outcome import ConfigError
from train.typed import typed


def written(plain: Mapping[str, Any]) -> str:
    """The text of the file."""
    return OmegaConf.to_yaml(OmegaConf.create(all_escaped(dict(plain))))


def read(path: Path) -> Config:
    """The config in the file, in which nothing is looked up. Raises ConfigError that says why it is none."""
    try:
        with nothing_looked_up():
            found = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    if not isinstance(found, dict):
        raise ConfigError("it holds a list, not keys and values")
    return typed({str(name): value for name, value in found.items()})
