"""Which checkpoints of a run are kept."""

from collections.abc import Sequence

from phalanx.config.schema import CheckpointConfig
from phalanx.run_folder.checkpoints import Checkpoints


def retain(
    checkpoints: Checkpoints, config: CheckpointConfig, best_steps: Sequence[int], averaged: Sequence[int]
) -> None:
    """Delete what `checkpoint.keep*` do not keep. `best_steps` are those of the best evaluations, the best first, and
    `averaged` those of which an average will be made.

    Only rank 0 calls it. A best step that was not saved, as where the save failed, is no reason to keep another.
    """
    best = next(iter(best_steps), None)
    checkpoints.retain(config.keep, best, [*best_steps[: config.keep_best], *averaged], config.keep_every)
