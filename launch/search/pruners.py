"""Pruners: which one a config names, and Optuna's, which end a trial for good.

ASHA (asha.py) is none of Optuna's: it pauses a trial at a rung and promotes it later from its checkpoint.

To add a pruner: its keys as a dataclass of phalanx/config/schema.py, its defaults in conf/sweep/pruner/NAME.yaml, and its
name in `pruner_config` and `pruner` here.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phalanx.config.check import section
from phalanx.config.limits import out_of_range
from phalanx.config.schema import AshaConfig, HyperbandConfig, MedianConfig, NoPruner, PrunerConfig
from phalanx.exit.codes import ConfigError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

_PATH = "sweep.pruner."


def pruner_config(plain: Mapping[str, Any], words: Sequence[str] = ()) -> PrunerConfig:
    """The config of a pruner, as sweep.pruner spells it. Raises ConfigError for a key that the pruner does not have, with
    the value as `words` typed it."""
    kind: type[PrunerConfig]
    match plain.get("name"):
        case "none":
            kind = NoPruner
        case "asha":
            kind = AshaConfig
        case "median":
            kind = MedianConfig
        case "hyperband":
            kind = HyperbandConfig
        case other:
            raise ConfigError(
                f"sweep.pruner.name={other} does not fit: it is none, asha, median or hyperband. Type sweep/pruner=asha"
            )
    config: PrunerConfig = section(kind, plain, _PATH, words)
    for message in out_of_range(config, _PATH):
        raise ConfigError(message)
    return config


def pruner(config: PrunerConfig) -> "BasePruner":
    """Optuna's pruner, which prunes nothing where none of its own is asked for."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    match config:
        case MedianConfig(first_step=first, after_trials=trials):
            return MedianPruner(n_startup_trials=trials, n_warmup_steps=first or 1)
        case HyperbandConfig(first_step=first, eta=eta):
            return HyperbandPruner(min_resource=first or 1, reduction_factor=eta)
    return NopPruner()
