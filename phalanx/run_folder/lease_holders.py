"""The present and former holders of a run: one file in lease/ for every start.

A file is named by its start's incarnation: 1, 2, 3 … The newest holds the run, unless it is marked as released.
"""

import errno
import json
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ..common.files import read_text, write_atomic
from ..exit.cluster_job import ClusterJob
from ..system.process_identity import machine_id, process_start
from . import names

_SMALL = 2**16  # bytes
_NAMED = re.compile(r"[0-9]{8}\.json")


@dataclass(frozen=True)
class Holder:
    """The process of a start. `began` is its start in clock ticks since boot; `pid` is valid within `machine`, its boot
    id and pid namespace.
    """

    incarnation: int
    host: str
    machine: str
    pid: int
    began: int
    job: str | None = None  # the cluster's, None for a process outside of any
    requeues: int = 0  # of that job
    from_step: int | None = None  # of the checkpoint that it continued from; None until it is known
    launch: str | None = None  # id shared by all attempts of one launch; None if the launcher sets none
    since: float | None = None  # when it acquired the lease, seconds since 1970
    opened: bool = False  # its process keeps `lease/` open, as those of older versions do not

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def is_here(holder: Holder) -> bool:
    """Whether its process is one of this machine's."""
    return holder.machine == machine_id()


def is_earlier_start(holder: Holder, environ: Mapping[str, str]) -> bool:
    """Whether it is an earlier start of the cluster's job that this process belongs to, which was requeued."""
    return is_earlier_requeue(holder, ClusterJob.from_environment(environ))


def held_by_this_launch(run: Path, environ: Mapping[str, str]) -> bool:
    """Whether an earlier attempt of this launch held the run; true if the launcher sets no id."""
    launch = _launch(environ)
    return launch is None or any(holder.launch == launch for holder, _ in holders(run))


def holders(run: Path) -> list[tuple[Holder, float]]:
    """All starts of the run, the oldest first, each with its last heartbeat (seconds since 1970)."""
    found = []
    for number in _incarnations(run):
        with suppress(FileNotFoundError):  # it was given back meanwhile
            if (holder := read_holder(run, number)) is not None:
                found.append((holder, names.lease_file(run, number).lstat().st_mtime))
    return found


def holder_of(run: Path) -> Holder | None:
    """The newest holder; None if it has released the lease."""
    holder = read_holder(run, newest_incarnation(run))
    return None if holder is None or was_released(run, holder.incarnation) else holder


def set_from_step(run: Path, incarnation: int, step: int) -> None:
    """Record the step that this start continues from: checkpoints of older starts beyond it are fenced."""
    holder = read_holder(run, incarnation)
    assert holder is not None, "it was claimed"
    write_atomic(names.lease_file(run, incarnation), json.dumps(asdict(replace(holder, from_step=step))))


def fenced(run: Path, incarnation: int, step: int) -> bool:
    """Whether a checkpoint at `step` by `incarnation` came after a newer start had gone on from an earlier step."""
    later = (read_holder(run, number) for number in _incarnations(run) if number > incarnation)
    return any(holder is not None and holder.from_step is not None and holder.from_step < step for holder in later)


def was_released(run: Path, incarnation: int) -> bool:
    return os.path.lexists(released_file(names.lease_file(run, incarnation)))


def is_earlier_requeue(holder: Holder, job: ClusterJob) -> bool:
    return holder.job is not None and holder.job == job.id and holder.requeues < job.restarts


def this_process(incarnation: int, environ: Mapping[str, str]) -> Holder:
    pid, host, job = os.getpid(), socket.gethostname(), ClusterJob.from_environment(environ)
    return Holder(
        incarnation,
        host,
        machine_id(),
        pid,
        process_start(pid) or 0,
        job.id,
        job.restarts,
        launch=_launch(environ),
        since=time.time(),
        opened=True,
    )


def _launch(environ: Mapping[str, str]) -> str | None:
    found = environ.get("PHALANX_LAUNCH", environ.get("TORCHELASTIC_RUN_ID"))
    return None if found == "none" else found  # torchrun's default for --rdzv-id


def _incarnations(run: Path) -> list[int]:
    """Raises OSError if the folder cannot be listed."""
    try:
        return sorted(int(name[:8]) for name in os.listdir(run / names.LEASE) if _NAMED.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def newest_incarnation(run: Path) -> int:
    return max(_incarnations(run), default=0)


def read_holder(run: Path, incarnation: int) -> Holder | None:
    """The holder in the file; None if it is missing or invalid. Raises other OSErrors."""
    try:
        found = json.loads(read_text(names.lease_file(run, incarnation), _SMALL))
        holder = Holder(**{known.name: found[known.name] for known in fields(Holder) if known.name in found})
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.ENOTDIR):  # no regular file
            return None
        raise
    return holder if holder.incarnation == incarnation and _is_ours(holder) else None


def _is_ours(holder: Holder) -> bool:
    """Whether the values of a file are valid: a signal to some pids, such as 0 or -1, reaches many processes."""
    numbers = (holder.incarnation, holder.pid, holder.began, holder.requeues)
    texts = [holder.host, holder.machine, *(text for text in (holder.job, holder.launch) if text is not None)]
    counted = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    dated = holder.since is None or (type(holder.since) is float and math.isfinite(holder.since))
    stepped = holder.from_step is None or type(holder.from_step) is int
    spelt = all(type(text) is str for text in texts) and type(holder.opened) is bool
    return counted and dated and stepped and spelt and 0 < holder.pid < 2**31


def released_file(path: Path) -> Path:
    return path.with_suffix(names.RELEASED)
