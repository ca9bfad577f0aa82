"""Optuna's pruners, which end a trial for good. What pauses trials at rungs and promotes them later is asha.py.

To add a pruner: its name and its keys in phalanx/config/schema.py, its option in conf/sweep/pruner/, and a branch here.
"""

from typing import TYPE_CHECKING

from phalanx.config.schema import PrunerConfig, PrunerName

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


def pruner(config: PrunerConfig) -> "BasePruner":
    """Of those that end trials for good; what pauses trials is launch/search/asha.py."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    first = config.first_step or 1
    if config.name is PrunerName.median:
        return MedianPruner(n_startup_trials=config.after_trials, n_warmup_steps=first)
    if config.name is PrunerName.hyperband:
        return HyperbandPruner(min_resource=first, reduction_factor=config.eta)
    return NopPruner()
