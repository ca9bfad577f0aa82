"""What a task is told of the run it is called in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Now:
    """`step` counts the optimizer steps that were taken before, `steps` those of the whole run.

    All micro-batches of a step have the same, on every rank and after a restart. `training` is False in an evaluation.
    `phase` is the name of the phase, of a task that has phases. `shown` is how many samples `show` is to show.
    """

    step: int = 0
    steps: int = 0
    training: bool = False
    phase: str | None = None
    shown: int = 16
