"""Start point of a new run: from scratch, from given weights (train.init_from), or extending a finished run."""

import json
from dataclasses import dataclass
from pathlib import Path

from phalanx.compose import digest
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, source

from .open_run import stored_config

# A run that itself began from given weights is extended from its own end.
_MAY_DIFFER = ("train.steps:", "train.epochs:", "train.extend_from:", "train.init_from:", "schedule.")


@dataclass(frozen=True)
class StartPoint:
    """`weights` is the file to initialise from, `extends` the last checkpoint of the run that is extended."""

    step: int
    position: int
    weights: Path | None
    extends: Checkpoint | None


def start_point(config: Config) -> StartPoint:
    """The start point that `config` names. Raises ConfigError if it is missing, damaged, or of another config."""
    train = config.train
    if train.extend_from is not None:
        found = _finished(Path(train.extend_from).expanduser(), config)
        progress = found.progress()
        return StartPoint(progress["step"], progress["position"], None, found)
    return StartPoint(0, 0, None if train.init_from is None else _weights(Path(train.init_from).expanduser()), None)


def _weights(given: Path) -> Path:
    """The file of the weights that `given` names; of a run its best, of a checkpoint its average where it has one."""
    if given.is_file():
        return given
    try:
        found = source(given, want_best=True)
    except ConfigError as error:
        raise ConfigError(f"train.init_from={given}: {error}") from None
    return found.file(names.EMA if found.has(names.EMA) else names.MODEL)


def _finished(run: Path, config: Config) -> Checkpoint:
    """The last checkpoint of `run`, if that finished and its config is this one in all but length and schedule."""
    if not (run / names.RESOLVED).is_file():
        raise ConfigError(
            f"train.extend_from={run} is no run's folder: it has no {names.RESOLVED}. Type a finished run's folder"
        )
    differ = digest.differences(digest.defining(stored_config(run)), digest.defining(config))
    others = [line for line in differ if not line.startswith(_MAY_DIFFER)]
    if others:
        raise ConfigError(
            f"train.extend_from={run} was trained with another config, and only length and schedule may change: "
            f"{'; '.join(others)}. Drop these, or begin a new run from its weights: train.init_from={run}"
        )
    try:
        steps = json.loads((run / names.SUMMARY).read_text(encoding="utf-8"))["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"train.extend_from={run} has not finished. Finish it first: type its own command") from None
    found = source(run, want_best=False)
    if found.step != steps:
        raise ConfigError(
            f"train.extend_from={run} ended at step {steps}, but its newest checkpoint is of step {found.step}"
        )
    return found
