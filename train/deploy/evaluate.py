"""Evaluate a checkpoint of a run on each of its evaluation sets."""

from typing import Any

from phalanx.compose.compose import Composed
from phalanx.deployment.job import Job, write_answer
from phalanx.exit import user_error

from ..distributed.world import World
from .parts import TrainedParts, trained_parts


def evaluate(job: Job, composed: Composed, world: World) -> None:
    """Write a line for each split. All ranks call it."""
    parts = trained_parts(job, composed, world)
    lines = [
        {"step": parts.checkpoint.step, "split": split, **metrics}
        for split, metrics in metrics_of(parts, world).items()
    ]
    if world.is_rank_zero:
        write_answer(lines)


def metrics_of(parts: TrainedParts, world: World) -> dict[str, dict[str, Any]]:
    """The metrics of each split. All ranks call it."""
    found = {}
    world.watchdog.at("evaluate", parts.checkpoint.step)
    for split, evaluation in parts.evaluations.items():
        with user_error.context(act="in an evaluation", set=evaluation.key):
            found[split] = evaluation(
                parts.model, None, world
            ).metrics  # all ranks take part, in one set after the other
    return found
