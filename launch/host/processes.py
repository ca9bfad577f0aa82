"""The processes below one, and what Linux offers so that none is left behind."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from phalanx.system.parent_death import end_with_parent, prctl

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on a process whose parent died, below this one, becomes a child of this one."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def tether(heard: signal.Signals) -> Callable[[], None]:
    """What a child calls before it becomes another program: it gets `heard` as soon as this process is gone."""
    parent = os.getpid()

    def hold() -> None:
        end_with_parent(heard)
        if os.getppid() != parent:  # gone before that took effect
            os._exit(1)

    return hold


def children(pid: int) -> list[int]:
    """The children of a process that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in "ZX":
                found.append(int(entry.name))
    return sorted(found)


def send(pid: int, heard: signal.Signals) -> None:
    """Send a signal to a process, unless it is gone."""
    assert pid > 0, "the others are groups of processes, and -1 is all that one has"
    with suppress(ProcessLookupError):
        os.kill(pid, heard)


def ignores(pid: int, heard: signal.Signals) -> bool:
    """Whether a process has chosen not to hear a signal, or was begun so, as a shell's script begins what it ends in &."""
    try:
        facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:  # it is gone
        return False
    return bool(int(facts["SigIgn"], 16) >> (heard - 1) & 1)


def reap() -> None:
    """Forget the children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
