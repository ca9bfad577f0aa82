"""Child processes on Linux: subreaper, parent-death signal, finding and signalling children."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from phalanx.system.parent_death import end_with, prctl

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Become a subreaper: orphaned descendants of this process become its children."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_this_process(heard: signal.Signals) -> Callable[[], None]:
    """Returns what a child calls before exec: it is sent `heard` as soon as this process is gone (PR_SET_PDEATHSIG)."""
    return partial(end_with, os.getpid(), heard)


def raise_on_interrupt() -> None:
    """Give this process the SIGINT handler that a Python has which was not forked: KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def children(pid: int) -> list[int]:
    """The children of a process that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found.append(int(entry.name))
    return sorted(found)


def send_signal(pid: int, heard: signal.Signals) -> None:
    """Send a signal to a process, unless it is gone."""
    assert pid > 0, "the others are groups of processes, and -1 is all that one has"
    with suppress(ProcessLookupError):
        os.kill(pid, heard)


def ignores_signal(pid: int, heard: signal.Signals) -> bool:
    """Whether a process ignores a signal, as one does that a shell script started in the background with &."""
    try:
        facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:  # it is gone
        return False
    return bool(int(facts["SigIgn"], 16) >> (heard - 1) & 1)


def reap_children() -> None:
    """Reap the children that have ended (waitpid)."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
