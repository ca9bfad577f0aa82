"""The runs that were given to Slurm from a folder of runs, and where their jobs stand."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

from ..submission.record import submitted
from . import client
from .client import Queued


@dataclass(frozen=True)
class Given:
    """A run or a sweep that was submitted, with the log of the newest submission. `known` says whether Slurm was asked.

    The file `cancelled` is there when a person has ended its job. `jobs` are those that have not ended: of a run one at
    most, of a sweep all elements that work on it.
    """

    run: Path
    log: Path
    cancelled: Path
    jobs: tuple[Queued, ...]
    known: bool

    @property
    def queued(self) -> Queued | None:
        """The job that is furthest, None where all have ended."""
        return min(self.jobs, key=lambda job: job.waits, default=None)


def given(root: Path, environ: Mapping[str, str]) -> dict[Path, Given]:
    """All runs below `root` that were ever submitted, by their folders, which need not exist yet.

    Says so when Slurm does not answer, and goes on without it.
    """
    found = submitted(root)
    if not found:
        return {}
    queue = _queue(environ)
    jobs = {(job.token, job.element): job for job in queue or []}
    newest: dict[Path, Given] = {}
    for each in found:
        job, run = jobs.get((each.token, each.element)), each.run.resolve()
        before = newest[run].jobs if run in newest else ()
        newest[run] = Given(each.run, each.log, each.cancelled, (*before, job) if job else before, queue is not None)
    return newest


def _queue(environ: Mapping[str, str]) -> list[Queued] | None:
    if shutil.which("squeue", path=environ.get("PATH")) is None:
        return None
    try:
        return client.queue(environ)
    except ConfigError as error:
        say(f"phalanx: Slurm does not answer, so this is what the files tell: {error}")
        return None
