"""Count the CPUs to compute on: CPU affinity of this process, limited by a container's cgroup quota."""

import os
from collections.abc import Iterator, Mapping
from math import floor
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available() -> int:
    """The number of CPUs that this process may use."""
    cores, limit = len(os.sched_getaffinity(0)), own_quota()
    return cores if limit is None else max(1, min(cores, limit))


def threads(environ: Mapping[str, str], ranks: int) -> int:
    """CPU threads per rank for `ranks` ranks on this machine: OMP_NUM_THREADS if the user set it, else an equal share."""
    return typed(environ) or max(1, available() // ranks)


def typed(environ: Mapping[str, str]) -> int | None:
    """OMP_NUM_THREADS if the user set it. torchrun sets it to 1 for several ranks, which does not count."""
    number = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # further numbers are for nested regions
    if not number.isdecimal() or int(number) < 1:
        return None
    return None if number == "1" and _of_torchrun(environ) else int(number)


def own_quota() -> int | None:
    """The `quota` of this process."""
    return quota(_text(Path("/proc/self/cgroup")), _CGROUPS)


def quota(groups: str, root: Path) -> int | None:
    """Whole CPUs that the control groups in `groups` (as in /proc/self/cgroup) may use at a time, None for no limit.

    `root` is where the groups' files are mounted, of version 2 or 1. Each group is also held to those above it.
    """
    limits = [limit for folder in _folders(groups, root) if (limit := _limit(folder)) is not None]
    return floor(min(limits)) if limits else None


def _of_torchrun(environ: Mapping[str, str]) -> bool:
    """Whether torchrun, this process's parent, has added the variable: it was not in its own environment then."""
    if "TORCHELASTIC_RUN_ID" not in environ:
        return False
    began_with = _text(Path(f"/proc/{os.getppid()}/environ"))
    return not any(word.startswith("OMP_NUM_THREADS=") for word in began_with.split("\0"))


def _folders(groups: str, root: Path) -> Iterator[Path]:
    """Of this process's groups and all above them. A container may see its own group's files at the root alone."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for top in [root / controllers, root / "cpu"] if controllers else [root]:
            below = top / path.lstrip("/")
            yield from (folder for folder in (below, *below.parents) if folder.is_relative_to(top))


def _limit(folder: Path) -> float | None:
    """CPU time a period, in periods: version 2 writes "200000 100000" or "max 100000", version 1 two files, -1 for none."""
    words = _text(folder / "cpu.max").split() or [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        used, period = (int(word) for word in words)
    except ValueError:
        return None
    return used / period if used > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
