"""The runs that were given to Slurm from a folder of runs, and where their jobs stand."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launch import slurm
from launch.slurm import Queued
from launch.submission import submitted
from train.outcome import ConfigError
from train.refusal import say


@dataclass(frozen=True)
class Given:
    """The newest submission of a run. `queued` is None when its job has ended, `known` says whether Slurm was asked."""

    run: Path
    log: Path
    queued: Queued | None
    known: bool


def given(root: Path, environ: Mapping[str, str]) -> dict[Path, Given]:
    """All runs below `root` that were ever submitted, by their folders, which need not exist yet.

    Says so when Slurm does not answer, and goes on without it.
    """
    found = submitted(root)
    if not found:
        return {}
    queue = _queue(environ)
    jobs = {(job.token, job.element): job for job in queue or []}
    return {
        each.run.resolve(): Given(each.run, each.log, jobs.get((each.token, each.element)), queue is not None)
        for each in found
    }


def _queue(environ: Mapping[str, str]) -> list[Queued] | None:
    if shutil.which("squeue", path=environ.get("PATH")) is None:
        return None
    try:
        return slurm.queue(environ)
    except ConfigError as error:
        say(f"phalanx: Slurm does not answer, so this is what the files tell: {error}")
        return None
