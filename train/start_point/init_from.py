"""Start point of a new run: from scratch, from given weights (train.init_from), or extending another run."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from phalanx.config.schema import Config, TrainConfig
from phalanx.exit.codes import ConfigError

from ..checkpoint import weights
from . import weight_files
from .extend_from import Extension, extension
from .match_names import Matched, match


@dataclass(frozen=True)
class StartPoint:
    """`weights` are the files to initialise from, `extends` is the run that is extended and where."""

    weights: tuple[Path, ...]
    extends: Extension | None

    @property
    def step(self) -> int:
        return 0 if self.extends is None else self.extends.step

    @property
    def position(self) -> int:
        return 0 if self.extends is None else self.extends.position


def start_point(config: Config) -> StartPoint:
    """The start point that `config` names. Raises ConfigError if it is missing, damaged, or of another config."""
    given = config.train.init_from
    return StartPoint(() if given is None else _weights(Path(given).expanduser()), extension(config))


def load_initial(model: nn.Module, start: StartPoint, train: TrainConfig) -> Matched | None:
    """Load the weights that the run starts from; what came of each name, or None if it starts from none.

    What is skipped keeps what the model was built with. Raises ConfigError.
    """
    if not start.weights:
        return None
    where = str(train.init_from)
    found, under = weight_files.read(start.weights)
    if callable(translate := getattr(model, "translate_weights", None)):
        found = dict(translate(found))
    matched = match(found, model.state_dict(), train, where)
    weights.put(model, matched.tensors, where, matched.extra)
    return replace(matched, said=[*under, *matched.said])


def _weights(given: Path) -> tuple[Path, ...]:
    try:
        return weight_files.files_of(given)
    except ConfigError as error:
        raise ConfigError(f"train.init_from={given}: {error}") from None
