"""Waits for a Slurm job and decides the exit code of `submit --wait`, over requeues and all elements of an array."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say

from ..submission.array import array_indices
from ..submission.backend import element_id
from . import client

_POLL_S = 5.0  # between two questions to a controller that many others ask, too
_FORGOTTEN_LOOKS = 3  # after which what Slurm does not list is over, and not just about to be listed
_ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
}


@dataclass(frozen=True)
class JobEnd:
    """`code` is the job's own exit code, `signal` the one that ended it, 0 for none."""

    state: str
    code: int
    signal: int

    @property
    def exit_code(self) -> int:
        """The code to leave with: 0 for what came to its good end alone, 1 for what was cancelled before it ran."""
        if self.state == "OUT_OF_MEMORY":
            return ExitCode.OUT_OF_MEMORY
        own = 128 + self.signal if self.signal else self.code
        return own or (ExitCode.FINISHED if self.state == "COMPLETED" else ExitCode.BUG)


def wait_for_job(job: str, wanted: Collection[str], environ: Mapping[str, str]) -> int:
    """Wait until all `wanted` elements of `job` have ended, "" being that of a job without an array; the highest code.

    A controller that does not answer is waited for.
    """
    ends: dict[str, JobEnd] = {}
    missed = 0
    while True:
        found = _patiently(lambda: dict(_listed(client.job_facts(job, environ))))
        ends |= {element: end for element, end in found.items() if end is not None}
        for element in found.keys() & ends.keys():
            if found[element] is None:  # requeued
                del ends[element]
        missed = 0 if any(element in found and element not in ends for element in wanted) else missed + 1
        left = [element for element in wanted if element not in ends]
        if not left:
            return max(end.exit_code for end in ends.values())
        if missed >= _FORGOTTEN_LOOKS:
            return max([*(end.exit_code for end in ends.values()), *(_accounted(job, left, environ))])
        time.sleep(_POLL_S)


def _patiently(ask: Callable[[], dict[str, JobEnd | None]]) -> dict[str, JobEnd | None]:
    said = False
    while True:
        try:
            return ask()
        except ConfigError as error:
            if not said:
                say(f"phalanx: Slurm does not answer, and is asked again until it does: {error}")
            said = True
            time.sleep(_POLL_S)


def _listed(text: str) -> Iterator[tuple[str, JobEnd | None]]:
    """The elements that scontrol tells of, with how those that have ended did."""
    for line in text.splitlines():
        facts = dict(re.findall(r"(?:^| )(JobId|ArrayTaskId|JobState|ExitCode)=(\S+)", line))
        if "JobState" not in facts:
            continue
        code, _, signal = facts.get("ExitCode", "0:0").partition(":")
        ended = facts["JobState"] in _ENDED
        end = JobEnd(facts["JobState"], int(code), int(signal or 0)) if ended else None
        task = facts.get("ArrayTaskId")
        for element in [""] if task is None else map(str, array_indices(task)):
            yield element, end


def _accounted(job: str, left: Collection[str], environ: Mapping[str, str]) -> Iterator[int]:
    """The codes of elements that the controller has forgotten, as the accounting has them."""
    told = client.accounted_ends(job, environ)
    for element in left:
        name = element_id(job, element)
        state, code, signal = told.get(name, ("", 0, 0))
        if not state:
            say(f"phalanx: Slurm does not remember how job {name} ended, which counts as a failure")
        yield JobEnd(state, code, signal).exit_code


def cancelled(job: str, environ: Mapping[str, str]) -> dict[str, bool]:
    """Of each element of a job that has ended and that controller or accounting remember, whether it was cancelled."""
    ended = {element: end.state for element, end in _listed(client.job_facts(job, environ)) if end is not None}
    if not ended:
        told = client.accounted_ends(job, environ)
        ended = {name.removeprefix(job).removeprefix("_"): state for name, (state, _, _) in told.items()}
    return {element: state == "CANCELLED" for element, state in ended.items()}
