"""Start point of a new run: from scratch, from given weights (train.init_from), or extending a finished run."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from phalanx.compose import digest
from phalanx.config.schema import Config, TrainConfig
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, source

from . import weight_files, weights
from .match_names import Matched, match
from .open_run import stored_config

# A run that itself began from given weights is extended from its own end.
_MAY_DIFFER = (
    "train.steps:",
    "train.epochs:",
    "train.extend_from:",
    "train.init_from:",
    "train.init_strip:",
    "train.init_rename",
    "train.init_skip:",
    "schedule.",
)


@dataclass(frozen=True)
class StartPoint:
    """`weights` are the files to initialise from, `extends` is the last checkpoint of the run that is extended."""

    step: int
    position: int
    weights: tuple[Path, ...]
    extends: Checkpoint | None


def start_point(config: Config) -> StartPoint:
    """The start point that `config` names. Raises ConfigError if it is missing, damaged, or of another config."""
    train = config.train
    if train.extend_from is not None:
        found = _finished(Path(train.extend_from).expanduser(), config)
        progress = found.progress()
        return StartPoint(progress["step"], progress["position"], (), found)
    return StartPoint(0, 0, () if train.init_from is None else _weights(Path(train.init_from).expanduser()), None)


def load_initial(model: nn.Module, start: StartPoint, train: TrainConfig) -> Matched | None:
    """Load the weights that the run starts from; what came of each name, or None if it starts from none.

    What is skipped keeps what the model was built with. Raises ConfigError.
    """
    if not start.weights:
        return None
    where = str(train.init_from)
    found, under = weight_files.read(start.weights)
    matched = match(found, model.state_dict(), train, where)
    weights.put(model, matched.tensors, where, matched.extra)
    return replace(matched, said=[*under, *matched.said])


def _weights(given: Path) -> tuple[Path, ...]:
    try:
        return weight_files.files_of(given)
    except ConfigError as error:
        raise ConfigError(f"train.init_from={given}: {error}") from None


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
