"""The checkpoint that is evaluated or exported: found by name, and loaded into a model."""

from functools import partial
from pathlib import Path

from torch import nn

from phalanx.deployment.job import BEST, LAST
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, Checkpoints, source, verified_step
from phalanx.run_folder.jsonl import read_events
from phalanx.run_folder.links import check_links

from ..checkpoint.state import restore_model
from ..checkpoint.weights import averaged
from ..distributed.world import World
from ..parallel.strategy import ParallelStrategy

_TRIES = 3  # a run that goes on deletes old checkpoints


def load_checkpoint(
    model: nn.Module, run: Path, which: str, strategy: ParallelStrategy | None, world: World
) -> Checkpoint:
    """Load the weights of `which` into the model, their average where there is one. All ranks call it.

    Raises ConfigError.
    """
    for tries_left in reversed(range(_TRIES)):
        # All ranks take part; rank 0 looks for the checkpoint and sends it.
        found = world.broadcast_object(world.raise_on_all(lambda: _find(run, which) if world.is_rank_zero else None))
        assert found is not None
        restore = partial(_restore, model, found, strategy, world, may_go=tries_left > 0)
        if all(world.gather(world.raise_on_all(restore))):  # all ranks take part
            return found
    raise AssertionError("the last try raises")


def _restore(
    model: nn.Module, checkpoint: Checkpoint, strategy: ParallelStrategy | None, world: World, *, may_go: bool
) -> bool:
    """Whether it was still there; where that is not asked an error is raised. All ranks call it."""
    try:
        restore_model(model, checkpoint, averaged(checkpoint), strategy, world.device)
    except (ConfigError, OSError):
        if checkpoint.folder.exists() or not may_go:
            raise
        return False
    return True


def steps_of(run: Path, step: int) -> int:
    """The steps of the whole run, as its last start has told; `step` where it has told nothing."""
    told = [event["steps"] for event in read_events(run) if event.get("event") in ("start", "resume")]
    return max([step, *(steps for steps in told if type(steps) is int)])


def _find(run: Path, which: str) -> Checkpoint:
    check_links(run)
    if which in (BEST, LAST):
        found = source(run, want_best=which == BEST)
        best = found.manifest.get("best_step")
        if which == BEST and best not in (None, found.step):
            raise ConfigError(
                f"The best step of {run} is {best}, and its checkpoint is not there any more. Type --which last, which is "
                f"step {found.step}"
            )
        return found
    steps = Checkpoints(run).steps()
    if int(which) not in steps:
        known = ", ".join(map(str, steps)) or "none at all"
        raise ConfigError(
            f"--which={which}: {run / names.CHECKPOINTS} has no checkpoint of that step. There is: {known}. Type one of "
            "them, best or last"
        )
    return verified_step(run, int(which))
