"""Command line -> Config: Hydra composes, the schema checks, and whatever is wrong becomes one message."""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from train.config import Config
from train.identity import digest
from train.outcome import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"


@dataclass(frozen=True)
class Composed:
    """A typed config, and the same as plain data.

    `foreign` tells that it was not composed from conf/ but came with a run's folder (--config-name resolved), so that the
    classes it names are only trusted as far as the command line says.
    """

    config: Config
    plain: Mapping[str, Any]
    foreign: bool


def compose(argv: Sequence[str]) -> Composed | None:
    """Compose the config of the command line `argv` (without the program's name).

    None when Hydra answered by itself, as for --help, --cfg and tab completion. Raises ConfigError.
    """
    _refuse_multirun(argv)
    try:
        found = _hydra(argv)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, argv)) from None
    if found is None:
        return None
    cfg, experiment, foreign = found
    config = typed(cfg)
    if foreign and not any(override.key_or_group == "run.trust" for override in _overrides(argv)):
        config = replace(config, run=replace(config.run, trust=[]))
    if config.run.name is None:
        name = f"{experiment}-{digest(config)[:8]}"
        config = replace(config, run=replace(config.run, name=name))
    return Composed(config, plain(config), foreign)


def typed(cfg: DictConfig) -> Config:
    """Hold a composed config against the schema. Raises ConfigError naming the key."""
    try:
        merged = OmegaConf.merge(_schema(), cfg)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise ConfigError(f"{missing[0]} has no value yet and must be given. Type {missing[0]}=…")
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain_type(error, cfg)) from None
    assert isinstance(config, Config)
    return config


def plain(config: Config) -> dict[str, Any]:
    """The config as nested dicts of plain values, as resolved.yaml holds it."""
    container = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _schema() -> DictConfig:
    """The schema with every section laid out and writable: OmegaConf makes nodes of frozen dataclasses read-only."""
    schema = OmegaConf.structured(Config)
    OmegaConf.set_readonly(schema, False)
    for entry in fields(Config):
        if is_dataclass(entry.type):
            schema[entry.name] = OmegaConf.structured(entry.type)
            OmegaConf.set_readonly(schema._get_node(entry.name), None)
    return schema


def _hydra(argv: Sequence[str]) -> tuple[DictConfig, str, bool] | None:
    """The composed config, the experiment chosen, and whether another primary config than conf/config.yaml was named."""
    composed: list[tuple[DictConfig, str, bool]] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def keep(cfg: DictConfig) -> None:
        OmegaConf.resolve(cfg)
        hydra_cfg = HydraConfig.get()
        experiment = hydra_cfg.runtime.choices.get("experiment") or "run"
        composed.append((cfg, str(experiment), hydra_cfg.job.config_name != "config"))

    with _raising(), _arguments(argv):
        keep()
    return composed[0] if composed else None


@contextmanager
def _raising() -> Iterator[None]:
    """Let Hydra raise instead of printing and leaving with code 1."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


@contextmanager
def _arguments(argv: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        yield
    finally:
        sys.argv = before


def _refuse_multirun(argv: Sequence[str]) -> None:
    if any(word in ("-m", "--multirun") or re.match(r"\+*hydra\.mode=", word) for word in argv):
        raise ConfigError(
            "-m (multirun) would run every point inside this one process, and under torchrun every rank would draw its "
            "own. Sweeps over real distributed runs do not exist yet: type one command a point, without -m"
        )


def _explain(error: Exception, argv: Sequence[str]) -> str:
    """One message for what Hydra could not compose."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        choices = [str(choice) for choice in error.options]
        return f"{group}={option}: there is no such {group}. {_nearest(option, choices)}It can be: {', '.join(choices)}"
    for override in _overrides(argv):
        if (message := _unknown_key(override, argv)) is not None:
            return message
    return " ".join(str(error).split())


def _unknown_key(override: Override, argv: Sequence[str]) -> str | None:
    key = override.key_or_group
    known = _known_keys(argv)
    if not known or key in known or override.is_add() or override.is_force_add() or (CONF / key).is_dir():
        return None
    parent = key.rpartition(".")[0]
    append = f"To add a key of your own there, type +{override.input_line}. " if _free_form(parent, known) else ""
    return f"{key} is not a key of the config. {_nearest(key, known)}{append}--cfg job prints all keys"


def _free_form(parent: str, known: Sequence[str]) -> bool:
    return f"{parent}._target_" in known


def _nearest(word: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if not near:
        last = [choice for choice in choices if choice.rpartition(".")[2] == word.rpartition(".")[2]]
        near = last[:1]
    return f"Did you mean {near[0]}? " if near else ""


def _known_keys(argv: Sequence[str]) -> list[str]:
    """Every key of the config that the command's groups and flags alone compose; none when they do not compose."""
    values = {override.input_line for override in _overrides(argv) if not (CONF / override.key_or_group).is_dir()}
    try:
        found = _hydra([word for word in argv if word not in values])
    except (HydraException, OmegaConfBaseException):
        return []
    return list(_flatten(OmegaConf.to_container(found[0]), "")) if found else []


def _overrides(argv: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for word in argv:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException:
            continue
    return parsed


def _flatten(node: Any, path: str) -> Iterator[str]:
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flatten(value, f"{path}.{key}" if path else str(key))


def _explain_type(error: OmegaConfBaseException, cfg: DictConfig) -> str:
    """One message for a value that the schema refuses."""
    key = str(error.full_key or "")
    reason = str(error).splitlines()[0]
    if reason.startswith("Key "):
        section = OmegaConf.select(_schema(), key.rpartition(".")[0]) if "." in key else _schema()
        parent = key.rpartition(".")[0]
        known = [f"{parent}.{name}" if parent else str(name) for name in section]
        return f"{key} is not a key of the config. {_nearest(key, known)}--cfg job prints all keys"
    value = OmegaConf.select(cfg, key) if key else None
    return f"{key}={value!r} has the wrong type: {reason}" if key else f"The config does not fit the schema: {reason}"
