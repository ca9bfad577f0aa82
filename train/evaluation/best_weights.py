"""The best weights of a run in the place of its last ones, for what is evaluated once, at the end."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phalanx.exit.codes import ConfigError
from phalanx.run_folder.checkpoints import Checkpoint, verified_step

from ..checkpoint import state as run_state
from ..checkpoint.preserve import unchanged
from ..checkpoint.progress import Progress
from ..checkpoint.state import State
from ..checkpoint.weights import averaged
from ..optim.ema import Average

logger = logging.getLogger(__name__)


@contextmanager
def best_weights(state: State, progress: Progress, run: Path) -> Iterator[tuple[int, Average | None]]:
    """Inside, the model has the weights of the best step, or of the last where no other is known to be better.

    Gives the step, and the average to evaluate with, None where the model holds it itself. Where the best checkpoint is
    damaged that is said, and the last weights stay. All ranks call it, after the last save is done.
    """
    world = state.world
    # All ranks take part; rank 0 looks for the checkpoint and sends it.
    best = world.broadcast_object(world.raise_on_all(lambda: _best(progress, run) if world.is_rank_zero else None))
    if best is None:
        yield progress.step, state.updater.average
        return
    with unchanged(state.model):
        strategy, device = state.strategy, world.device
        # All ranks take part.
        world.raise_on_all(lambda: run_state.restore_model(state.model, best, averaged(best), strategy, device))
        yield best.step, None


def _best(progress: Progress, run: Path) -> Checkpoint | None:
    if progress.best_step is None or progress.best_step == progress.step:
        return None
    try:
        return verified_step(run, progress.best_step)
    except ConfigError as error:
        logger.warning("data.test is evaluated with the last weights, not with the best: %s", error)
        return None
