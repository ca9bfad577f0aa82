"""Runs in the queue of the tests' cluster: what is submitted, what status tells of them, and what displaces them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from phalanx.run_folder.jsonl import Entry
from tests.slurm.slurm_lab import Desk, LabJob

TINY = ("model=mlp", "model.hidden=[8]", "train.steps=5")
ONE = ("cluster.ranks_per_node=1",)
TWO = ("cluster.nodes=2", "cluster.ranks_per_node=1")


def told(desk: Desk, *runs: str, environ: Mapping[str, str] | None = None) -> dict[str, Entry]:
    """What `phalanx status --json` says, by the run's name."""
    done = desk.phalanx("status", "--json", f"--root={desk.runs}", *runs, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {entry["run"].rpartition("/")[2]: entry for entry in found}


@contextmanager
def held(desk: Desk) -> Iterator[str]:
    """A job that others wait for; it is let go in the end."""
    job = desk.cluster.ask("sbatch", "--parsable", "--hold", "--wrap=true")
    yield job
    desk.cluster.ask("scontrol", "release", job)


def crowd_out(job: LabJob, element: str, where: str) -> None:
    """A more urgent job takes the GPUs; returns when Slurm has told `element` to go."""
    job.cluster.ask("sbatch", "--partition=urgent", where, "--gpus-per-node=2", "--wrap=true")
    job.cluster.until(lambda: job.cluster.facts(element)["PreemptTime"] != "None")
