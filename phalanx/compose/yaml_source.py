"""A Hydra config source with clear errors for files that are no UTF-8 or no YAML."""

import codecs
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from ..exit.codes import ConfigError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class YamlSource(FileConfigSource):
    """Raises ConfigError, which names the file and the line, where Hydra would take the file for absent or give up."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        try:
            found = self._found(path, config_path)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
            said = " ".join(filter(None, (error.context, error.problem)))
            raise ConfigError(f"{path}{where} is no YAML: {said}. Mend the file") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}. Mend the file") from None
        except RecursionError:
            raise ConfigError(
                f"{path} nests too deeply, or holds an alias of what it stands in. Mend the file"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}. Mend the file") from None
        if not isinstance(found.config, DictConfig):
            raise ConfigError(f"{path} holds a list, and a config is keys and values. Write key: value lines")
        return found

    def _found(self, path: Path, config_path: str) -> ConfigResult:
        header, keys = _parsed(path, _state(path)) if path.is_file() else ({}, None)
        if not isinstance(keys, dict):  # Hydra says what is amiss
            found: ConfigResult = super().load_config(config_path)
            return found
        where = f"{self.scheme()}://{self.path}"
        return ConfigResult(config=OmegaConf.create(keys), path=where, provider=self.provider, header=dict(header))


def install_yaml_source() -> None:
    """Make Hydra read all config files by YamlSource, those of hydra.searchpath, too."""
    Plugins.instance()  # registers Hydra's own sources, once a process
    SourcesRegistry.instance().types[YamlSource.scheme()] = YamlSource


def _state(path: Path) -> tuple[int, ...]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size, told.st_ino


@functools.lru_cache(maxsize=256)  # to parse takes a fifth of the time to compose, and a process may compose often
def _parsed(path: Path, _state: tuple[int, ...]) -> tuple[Mapping[str, str | None], Any]:
    """Hydra's header of the file, and what it holds, cached by its mtime, size and inode."""
    _check_encoding(path, path.read_bytes())
    text = path.read_text("utf-8")
    return ConfigSource._get_header_dict(text[:512]), yaml.load(text, Loader=get_yaml_loader())


def _check_encoding(path: Path, data: bytes) -> None:
    if data.startswith(codecs.BOM_UTF8):
        raise ConfigError(f"{path} begins with a byte order mark (BOM). Save it as UTF-8 without one")
    if data.startswith(_UTF_16) or b"\0" in data:
        raise ConfigError(f"{path} is UTF-16 or no text at all. Save it as UTF-8")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line} holds the byte 0x{data[error.start]:02x}, which is no UTF-8, as from an editor that "
            "saves Latin-1 (Windows-1252). Save it as UTF-8"
        ) from None
