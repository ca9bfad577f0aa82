"""A Hydra config source with clear errors for files that are no UTF-8 or no YAML."""

import codecs
from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from ..exit.codes import ConfigError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class YamlSource(FileConfigSource):
    """Raises ConfigError, which names the file and the line, where Hydra would take the file for absent or give up."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        try:
            if path.is_file():
                _check_encoding(path, path.read_bytes())
            found: ConfigResult = super().load_config(config_path)
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


def install_yaml_source() -> None:
    """Make Hydra read all config files by YamlSource, those of hydra.searchpath, too."""
    Plugins.instance()  # registers Hydra's own sources, once a process
    SourcesRegistry.instance().types[YamlSource.scheme()] = YamlSource


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
