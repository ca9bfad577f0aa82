"""Reset the keys of a stored config that must not be replayed: run.*, trackers, and the folder's location."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ..config.overrides import key, typed_for, value
from ..run_folder import names
from .hydra_api import CONF, PRIMARY

_STORED = names.RESOLVED.removesuffix(".yaml")  # the name of the config in a run's folder
_QUIET = ("disabled", "offline")

Plain = dict[str, Any]
_ONCE: Plain = {"fresh": False, "accept": None, "trust": [], "imports": []}  # what only who types it may say


def reset_run_settings(plain: Plain, config_dir: str | None, config_name: str, words: Sequence[str]) -> Plain:
    """The config with one-time keys of `run` reset, the folder where it is now, and trackers as conf/ and `words` say."""
    usual = OmegaConf.load(CONF / f"{PRIMARY}.yaml")
    found = {**plain}
    if isinstance(found.get("run"), dict):
        found["run"] = {**found["run"], **_ONCE, **_typed(plain, "run", words)}
        if config_name == _STORED and config_dir is not None:
            found["run"] |= _placed(Path(config_dir).absolute(), str(usual.run.root), words)
    for section, defaults in (("wandb", usual.wandb), ("mlflow", usual.mlflow), ("trackio", usual.trackio)):
        silence = _silence(plain) if section == "wandb" else {}
        found[section] = {**OmegaConf.to_container(defaults), **silence, **_typed(plain, section, words)}  # type: ignore[dict-item]
    found["sinks"] = _typed_sinks(words)
    return found


def _typed(plain: Mapping[str, Any], section: str, words: Sequence[str]) -> Plain:
    """What `words` set in a section."""
    there = plain.get(section)
    names = there if isinstance(there, dict) else {}
    return {name: names[name] for name in names if typed_for(f"{section}.{name}", words) is not None}


def _typed_sinks(words: Sequence[str]) -> Plain:
    """The sinks that `words` make by themselves: what is typed does not complete what is stored, or the other way round."""
    parser, found = OverridesParser.create(), Plain(sinks={})
    for word in words:
        path = key(word).split(".")
        if path[0] == "sinks" and value(word) is not None and word[:1] != "~":
            node = found
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = parser.parse_override(word).value()
    return dict(found["sinks"])


def _placed(folder: Path, root: str, words: Sequence[str]) -> Plain:
    """run.root and run.name by where the folder is now; with another run.name it is a new run below `root`."""
    moved = typed_for("run.name", words) is None and (folder / names.ENVIRONMENT).is_file()
    name = {"name": folder.name} if moved else {}
    return name if typed_for("run.root", words) is not None else {**name, "root": str(folder.parent) if moved else root}


def _silence(plain: Mapping[str, Any]) -> Plain:
    """Keep wandb.mode if it was disabled or offline; other tracker settings of a stored config are ignored."""
    there = plain.get("wandb")
    return {"mode": there["mode"]} if isinstance(there, dict) and there.get("mode") in _QUIET else {}
