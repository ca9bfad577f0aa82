"""What a config that came with a run's folder does not decide: who types the command does, or where the folder lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..config.overrides import typed_for
from ..run_folder import names
from .hydra_api import CONF, PRIMARY

_STORED = names.RESOLVED.removesuffix(".yaml")  # the name of the config in a run's folder
_QUIET = ("disabled", "offline")

Plain = dict[str, Any]


def reset_run_settings(plain: Plain, config_dir: str | None, config_name: str, words: Sequence[str]) -> Plain:
    """The config without orders of then, for a place of now, and told to nobody whom `words` do not name."""
    usual = OmegaConf.load(CONF / f"{PRIMARY}.yaml")
    found = {**plain}
    if isinstance(found.get("run"), dict):
        found["run"] = {**found["run"], "fresh": False, "accept": None, "trust": []} | _typed(plain, "run", words)
        if config_name == _STORED and config_dir is not None:
            found["run"] |= _placed(Path(config_dir).absolute(), str(usual.run.root), words)
    found["wandb"] = {**OmegaConf.to_container(usual.wandb), **_silence(plain), **_typed(plain, "wandb", words)}  # type: ignore[dict-item]
    return found


def _typed(plain: Mapping[str, Any], section: str, words: Sequence[str]) -> Plain:
    """What `words` set in a section."""
    there = plain.get(section)
    names = there if isinstance(there, dict) else {}
    return {name: names[name] for name in names if typed_for(f"{section}.{name}", words) is not None}


def _placed(folder: Path, root: str, words: Sequence[str]) -> Plain:
    """A run is where its folder lies, wherever it began; one of another name is new, and below the usual `root`."""
    moved = typed_for("run.name", words) is None and (folder / names.ENVIRONMENT).is_file()
    name = {"name": folder.name} if moved else {}
    return name if typed_for("run.root", words) is not None else {**name, "root": str(folder.parent) if moved else root}


def _silence(plain: Mapping[str, Any]) -> Plain:
    """A run that told nobody does not begin to, though all else that it says of trackers counts for nothing."""
    there = plain.get("wandb")
    return {"mode": there["mode"]} if isinstance(there, dict) and there.get("mode") in _QUIET else {}
