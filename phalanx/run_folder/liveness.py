"""Whether the start that holds a run is alive: by its process on this machine, elsewhere by its heartbeat.

A heartbeat is a touch of the lease file. Clocks of two machines are never compared: a heartbeat is new by the clock of
the reader, and old by that of the file server.
"""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ..common.files import open_regular
from ..system.process_identity import machine_id, process_start
from . import names
from .lease_holders import Holder, holder_of

BEAT_S = 5.0  # between heartbeats
DEAD_S = 30.0  # without a heartbeat, after which a holder on another machine counts as dead
_BEATS = 1.6  # heartbeat intervals within which a live holder has touched its file
_LONG_DEAD_S = 3600.0  # age of the last heartbeat, by the file server's clock, beyond any clock error
_AHEAD_S = 2.0  # by which a touch may seem to lie in the future


class LivenessProbe:
    """Probes holders, and remembers between probes whose files were touched."""

    def __init__(self, *, waits: bool = True) -> None:
        """With waits=False `live` does not wait for each run, but collects those to `settle` in `unsettled`."""
        self.unsettled: dict[Path, Holder] = {}
        self._waits = waits
        self._seen: dict[Path, tuple[int, float]] = {}  # of a file: its last touch, and when that was first seen here
        self._clocks: dict[int, float] = {}  # of a file system: how far its clock is ahead of time.monotonic()

    def live(self, run: Path) -> Holder | None:
        """The live holder of the run; None if there is none, or it is dead as far as can be told from here.

        Takes up to two heartbeat intervals if one probe does not tell. Raises OSError if the folder cannot be read.
        """
        if (holder := holder_of(run)) is None:
            return None
        if (lives := self._lives(run, holder)) is None:
            self.unsettled[run] = holder
            lives = self.settle()[run] if self._waits else False
        return holder if lives else None

    def settle(self) -> dict[Path, bool]:
        """Wait until it is known of all in `unsettled` whether they are alive."""
        told: dict[Path, bool | None] = dict.fromkeys(self.unsettled)
        end_s = time.monotonic() + _BEATS * BEAT_S
        while None in told.values() and time.monotonic() < end_s:
            time.sleep(BEAT_S / 10)
            told |= {run: self._lives(run, self.unsettled[run]) for run, lives in told.items() if lives is None}
        self.unsettled = {}
        return {run: bool(lives) for run, lives in told.items()}

    def is_dead(self, run: Path, holder: Holder) -> bool:
        """Whether a holder on another machine had the time for a heartbeat and sent none. Never by a clock alone."""
        untouched_s, age_s = self._look(run, holder)
        return untouched_s > DEAD_S or (untouched_s > _BEATS * BEAT_S and age_s > DEAD_S)

    def ahead_s(self, run: Path) -> float:
        """How many seconds this machine's clock is ahead of that of the file system that the run lies on."""
        return time.time() - time.monotonic() - self._clock(run / names.LEASE, (run / names.LEASE).stat().st_dev)

    def _lives(self, run: Path, holder: Holder) -> bool | None:
        """None: one probe does not tell."""
        if holder.machine == machine_id():
            return is_process(run, holder)
        before = self._seen.get(names.lease_file(run, holder.incarnation))
        try:
            untouched_s, age_s = self._look(run, holder)
        except FileNotFoundError:
            return False
        if before is not None and before != self._seen[names.lease_file(run, holder.incarnation)]:
            return True
        if untouched_s > _BEATS * BEAT_S:
            return -_AHEAD_S < age_s < DEAD_S and untouched_s < DEAD_S
        if -_AHEAD_S < age_s < DEAD_S:
            return True
        return False if age_s > _LONG_DEAD_S else None

    def _look(self, run: Path, holder: Holder) -> tuple[float, float]:
        """Seconds since the last heartbeat was first seen here, and its age by the file server's clock."""
        path, now = names.lease_file(run, holder.incarnation), time.monotonic()
        with os.fdopen(open_regular(path)) as file:  # for NFS tells of a file as it is when it is opened
            found = os.fstat(file.fileno())
        if self._seen.get(path, (None, 0.0))[0] != found.st_mtime_ns:
            self._seen[path] = (found.st_mtime_ns, now)
        return now - self._seen[path][1], self._clock(path.parent, found.st_dev) + now - found.st_mtime

    def _clock(self, folder: Path, device: int) -> float:
        if device not in self._clocks:
            self._clocks[device] = file_clock(folder) - time.monotonic()
        return self._clocks[device]


def live(run: Path) -> Holder | None:
    """`LivenessProbe.live` for a single probe."""
    return LivenessProbe().live(run)


def is_process_of(run: Path, holder: Holder) -> bool | None:
    """Whether the process of `holder` has this folder's lease/ open, so that it may be sent a signal.

    None: it is another user's process, whose open files cannot be read.
    """
    return process_start(holder.pid) == holder.began and _has_open(holder.pid, run / names.LEASE)


def is_process(run: Path, holder: Holder) -> bool:
    """Whether the process of `holder` on this machine is alive, and has lease/ open as far as can be told."""
    if process_start(holder.pid) != holder.began:
        return False
    return not holder.opened or _has_open(holder.pid, run / names.LEASE) is not False


def _has_open(pid: int, folder: Path) -> bool | None:
    """Whether a process has a folder open; None where that is not told, as of another user's."""
    try:
        wanted = folder.stat()
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if os.readlink(descriptor).endswith(f"/{folder.name}") and os.path.samestat(descriptor.stat(), wanted):
                    return True
    except PermissionError:
        return None
    except OSError:
        pass  # it has ended, or there is no such folder
    return False


def file_clock(folder: Path) -> float:
    """Seconds since 1970 by the clock of a folder's file system, or by this machine's where nothing can be written."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".now-") as now:
        return os.fstat(now.fileno()).st_mtime
    return time.time()
