"""The interface of a cluster: what `phalanx submit`, `cancel`, `status` and `logs` ask of whatever runs jobs.

Slurm is one (launch/slurm/backend.py). Another is a class with these methods. Both functions of
launch/commands/backend.py, which know Slurm alone, then have a choice to make: by the name in a submission's record, and
for a new job by a key of ClusterConfig, which is still to be added. Variables that each of its jobs has anew are added to
launch/common/job_variables.py. What follows from a job's exit code is in exit_policy.py.

At each start of a job its script exports, of an array for each element by itself:
    PHALANX_JOB            the id by which `query` lists it: what runs in it is the cluster's to end, and a requeue takes
                           over at once from the start before
    PHALANX_JOB_RESTARTS   how often it was begun again: 0, 1, 2 …
    PHALANX_LAUNCH         the same at all starts, and no other job's: by it `logs --follow` waits for the next start
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from phalanx.config.schema import ClusterConfig
from phalanx.exit.codes import ConfigError

from .record import Submission


@dataclass(frozen=True)
class JobSpec:
    """A job to submit: `entry` is what its ranks run, in `phalanx/` of the copied code, or "sweep".

    It starts once the job `after` has ended well. `array` are the indices of its elements as --array spells them, None
    for a job without elements.
    """

    name: str
    entry: str
    cluster: ClusterConfig
    submission: Submission
    python: str
    after: str | None
    array: str | None


class JobPhase(StrEnum):
    """How far a job in the queue is. ENDING is one that has left its machines, or is about to."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDING = "ending"


@dataclass(frozen=True)
class QueuedJob:
    """A job that has not ended, or one element of its array, "" being that of a job without one.

    `token` is Submission.token, which it was submitted with. `state` and `reason` are the backend's own words for people:
    what it does, and why it waits or where it runs.
    """

    job: str
    token: str
    element: str
    phase: JobPhase
    state: str
    reason: str


class Backend(Protocol):
    """Runs jobs. Every method may raise ConfigError, which says what to type, where the cluster refuses or is silent."""

    @property
    def name(self) -> str:
        """As people call it, and records of submissions."""
        ...

    def check(self, cluster: ClusterConfig) -> None:
        """Raise ConfigError for values that this backend would misread. Asks nobody."""
        ...

    def check_live(self, cluster: ClusterConfig, after: str | None) -> None:
        """Raise ConfigError where nothing can be submitted from here, or the job would wait for ever."""
        ...

    def render(self, job: JobSpec) -> str:
        """What `submit` takes, and --dry-run prints. Asks nobody and writes nothing."""
        ...

    def submit(self, rendered: str) -> str:
        """Submit what `render` returned, character by character. Returns the job's id."""
        ...

    def expected_start(self, job: JobSpec) -> str:
        """When the job would start, in the cluster's words. Submits nothing."""
        ...

    def query(self) -> list[QueuedJob] | None:
        """This user's jobs that have not ended, each element by itself; None where this machine has no such cluster."""
        ...

    def cancel(self, job: str) -> None:
        """End a job, or one element of an array by the id that `query` gave it."""
        ...

    def wait(self, job: str, elements: Collection[str]) -> int:
        """Wait until all `elements` of a job have ended, requeues included, "" being that of a job without an array.

        Returns the highest exit code of theirs: 128 + signal for one that was killed, 1 for one that never ran.
        """
        ...

    def cancelled(self, job: str) -> Mapping[str, bool]:
        """Of each element of a job that has ended, as far as the cluster remembers it, whether it was cancelled."""
        ...

    def log_name(self, job: str) -> str:
        """The file in the submission's folder that holds what a job or an element printed."""
        ...


def element_id(job: str, element: str) -> str:
    """The id of one element of a job's array, "" being that of a job without one."""
    return f"{job}_{element}" if element else job


def ranks_per_node(cluster: ClusterConfig) -> int:
    """Raises ConfigError when nothing says how many."""
    found = cluster.ranks_per_node or cluster.gpus_per_node
    if not found:
        raise ConfigError(
            "Neither cluster.gpus_per_node nor cluster.ranks_per_node is set, so nothing says how many ranks a machine "
            "runs. Type cluster.gpus_per_node=8, or cluster.ranks_per_node=4 to train on CPUs"
        )
    return found
