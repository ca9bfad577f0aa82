"""Tell a process from a later one that got the same number, and a machine from itself after a restart."""

import os
from pathlib import Path


def machine_id() -> str:
    """Where process numbers mean the same: one start of a machine, and one space of them on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def process_start(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's; None for one that is gone or only waits to be buried."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
