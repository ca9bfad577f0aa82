"""Counts the kernel's OOM kills, by which a SIGKILL for lack of memory is told from any other."""

from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def kills(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> int:
    """OOM kills so far in this process's control group, or on the whole machine where the group has no counter."""
    with suppress(OSError, ValueError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                folder, name = cgroups / "memory", "memory.oom_control"
            elif not controllers:
                folder, name = cgroups, "memory.events"
            else:
                continue
            # Within a container the path may be the host's, and what is mounted is the container's own.
            for file in (folder / path.lstrip("/") / name, folder / name):
                if (found := _count(file)) is not None:
                    return found
    return _count(proc / "vmstat") or 0


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        facts = dict(line.split(None, 1) for line in file.read_text().splitlines())
        return int(facts["oom_kill"]) if "oom_kill" in facts else None
    return None
