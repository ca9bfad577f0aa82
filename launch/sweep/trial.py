"""What a sweep is, as plain data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phalanx.config.schema import Mode, SweepConfig

from ..search.asha import Asha
from ..search.space import SearchSpace, placed

if TYPE_CHECKING:
    from phalanx.compose.compose import Composed


class Job(NamedTuple):
    """A run to train: of a trial, with the seed in this place."""

    trial: int
    place: int


@dataclass(frozen=True)
class Plan:
    """`shared` are the words that a sweep adds to those of every point, `seed` is the first that trains.

    `threads` are those of a rank in this process's slots, None where the words say how many.
    `metric` ranks the trials, where `mode` is better. `compose` composes a command line; `asha` is for trials that are
    halved; `open` are the keys that each of the sweep's jobs looks up for itself.
    """

    folder: Path
    space: SearchSpace
    config: SweepConfig
    metric: str
    mode: Mode
    seed: int
    shared: tuple[str, ...]
    threads: int | None
    compose: "Callable[[Sequence[str]], Composed]"
    asha: Asha | None
    open: frozenset[str]

    def run(self, job: Job) -> Path:
        """The folder of a run."""
        more = f"-seed{self.seed + job.place}" if self.config.seeds > 1 else ""
        return self.folder / f"{job.trial:04d}{more}"

    def words(self, job: Job, chosen: Sequence[str], threads: int | None) -> list[str]:
        """The command line of a run of the point that `chosen` spells; what is trained depends on `threads`, too."""
        seed = [f"seed={self.seed + job.place}"] if self.config.seeds > 1 else []
        return [
            *placed(self.space.typed, chosen),
            *self.shared,
            *added(threads),
            *seed,
            f"run.name='{self.run(job).name}'",
        ]

    def jobs(self, trial: int) -> list[Job]:
        """The runs of a trial, one a seed."""
        return [Job(trial, place) for place in range(self.config.seeds)]


def added(threads: int | None) -> list[str]:
    """The words that a sweep adds to a point's and that its weights depend on."""
    return [] if threads is None else [f"train.threads={threads}"]
