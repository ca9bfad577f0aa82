"""What follows when a start of a job ends with an exit code: done, requeued, or requeued a few times. For all backends."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from phalanx.exit.codes import ExitCode


class Action(StrEnum):
    """DONE never starts again; REQUEUE does, `cluster.max_requeues` times at most; RETRY is a failure, which is requeued
    `cluster.max_failures` times at most, without a node that is known to be at fault."""

    DONE = "done"
    REQUEUE = "requeue"
    RETRY = "retry"


@dataclass(frozen=True)
class Policy:
    """`why` is what the job's log says."""

    action: Action
    why: str


EXIT_POLICY: Mapping[ExitCode, Policy] = {
    ExitCode.FINISHED: Policy(Action.DONE, "finished"),
    ExitCode.BUG: Policy(Action.RETRY, "failed with code 1"),
    ExitCode.CONFIG: Policy(Action.DONE, "not requeued: the config is wrong"),
    ExitCode.PREEMPTED: Policy(Action.REQUEUE, "saved, with steps to go"),
    ExitCode.GAVE_UP: Policy(Action.DONE, "not requeued: the run gave up"),
    ExitCode.HUNG: Policy(Action.RETRY, "failed with code 5"),
    ExitCode.OUT_OF_MEMORY: Policy(Action.DONE, "not requeued: out of memory"),
    ExitCode.STOPPED: Policy(Action.DONE, "not requeued: stopped by a person"),
    ExitCode.NO_ROOM: Policy(Action.DONE, "not requeued: the run folder cannot be written"),
}
"""A code that is none of these is treated as BUG."""


def policy_lines() -> str:
    """The table for a job's script: on each line a code, the action and why."""
    return "\n".join(f"{code:d} {policy.action} {policy.why}" for code, policy in EXIT_POLICY.items())
