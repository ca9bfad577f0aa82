"""Identify a process beyond its pid, which is reused, and a machine across reboots."""

import os
from pathlib import Path


def machine_id() -> str:
    """Boot id and pid namespace: where both are equal, a pid means the same process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def process_start(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's; None for one that is gone or a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
