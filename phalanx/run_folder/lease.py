"""The lease on a run folder: a lock that one start holds at a time, with fencing of older starts that wake up again.

The newest file in lease/ holds the run. Its process touches the file while it lives, and marks it as released when it
leaves in good order. A start that wants the run finds out whether the holder is dead: on the same machine by its process,
elsewhere by whether it still touches its file, or because Slurm has started the same job once more. A process that holds
a run keeps `lease/` open, so that a copy of the folder, or a file that somebody wrote, names nobody.

A requeue is no proof of death: a machine that lost its network may still write while its job runs elsewhere. So all that
readers see is fenced: lines by replacing their files (an old process writes to the old inode), checkpoints by the
incarnation in their manifest, and the rest by checking for a newer incarnation before each write.
"""

import errno
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..common.files import sync_folder, write_atomic
from ..exit.cluster_job import ClusterJob
from ..exit.codes import ConfigError
from ..exit.disk_errors import writing
from . import liveness, names
from .lease_holders import (
    Holder,
    is_earlier_requeue,
    newest_incarnation,
    read_holder,
    released_file,
    this_process,
    was_released,
)
from .liveness import LivenessProbe, file_clock, is_process

_EXIT_S = 5.0  # a killed process may need so long to exit
_REQUEUE_S = 120.0  # how long a start that the launcher began again waits for the one before
_POLL_S = 0.05
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)  # as of FAT, and of some FUSE file systems


class Lease:
    """An acquired lease, until `close` or the end of the process."""

    def __init__(self, run: Path, incarnation: int, folder: int) -> None:
        """`folder` is a descriptor of `lease/`."""
        self.incarnation = incarnation
        self._path = names.lease_file(run, incarnation)
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def follow(self, run: Path) -> None:
        """The folder was renamed to `run`."""
        self._path = names.lease_file(run, self.incarnation)

    def close(self) -> None:
        """Release the lease. The file stays: it has the step from which this start continued."""
        if not self._over.is_set():
            with suppress(OSError):
                released_file(self._path).touch()
        self._end()

    def withdraw(self) -> None:
        """Release the lease and delete its file: nothing was written by this start."""
        if not self._over.is_set():
            with suppress(OSError):
                self._path.unlink()
        self._end()

    def _end(self) -> None:
        if not self._over.is_set():
            os.close(self._folder)
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(liveness.BEAT_S):
            with suppress(OSError):
                os.utime(self._path, follow_symlinks=False)


def acquire(run: Path, attempt: int, environ: Mapping[str, str]) -> Lease:
    """Acquire the lease of the run folder; `attempt` counts the launcher's restarts of this command.

    Raises ConfigError if a live start holds it. A launcher's restart waits for the attempt before, two minutes at most; a
    requeued job takes the run over at once.
    """
    try:
        with writing(run, ours=False):
            return _acquired(run, attempt, environ)
    except OSError as error:
        raise ConfigError(
            f"{run} cannot be held: {error.strerror}. Type run.root=… with a folder to write to"
        ) from None


def _acquired(run: Path, attempt: int, environ: Mapping[str, str]) -> Lease:
    (run / names.LEASE).mkdir(exist_ok=True)
    folder = os.open(run / names.LEASE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Lease(run, _wait_for_turn(run, attempt, environ), folder)
    except BaseException:
        os.close(folder)
        raise


def _wait_for_turn(run: Path, attempt: int, environ: Mapping[str, str]) -> int:
    """Wait until the start before is over, and create the next incarnation, whose number is returned."""
    patience, probe = time.monotonic() + (_REQUEUE_S if attempt else _EXIT_S), LivenessProbe()
    while True:
        newest = newest_incarnation(run)
        own = this_process(newest + 1, environ)
        holder = read_holder(run, newest) if newest else None
        if holder is None or _is_over(run, holder, own, probe):
            if not _is_being_made(run, newest) and _create(run, own):
                return own.incarnation
        elif time.monotonic() > patience + (liveness.DEAD_S if holder.machine != own.machine else 0.0):
            raise ConfigError(
                f"{run} is in use: {holder} trains this run right now. Wait for it, end it, or type run.name=… for "
                "another run"
            )
        time.sleep(_POLL_S)


def takeover_message(run: Path, incarnation: int) -> str | None:
    """The message if another start has taken the run over from `incarnation`; else None."""
    newest = newest_incarnation(run)
    if newest <= incarnation:
        return None
    holder = read_holder(run, newest) or "another process"
    return f"{holder} has taken over {run}, so this process leaves and saves nothing more"


def check(run: Path, incarnation: int) -> None:
    """Raise ConfigError if another start has taken the run over. Call it before each change that readers see."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=run / names.LEASE, prefix=".look-"):
        pass  # NFS caches a folder's entries for up to a minute, unless this client has just changed it
    if (message := takeover_message(run, incarnation)) is not None:
        raise ConfigError(message)


def _is_over(run: Path, holder: Holder, own: Holder, probe: LivenessProbe) -> bool:
    """Whether the run may be taken from `holder`."""
    if was_released(run, holder.incarnation):
        return True
    if is_earlier_requeue(holder, ClusterJob(own.job, own.requeues)):
        return True
    return not is_process(run, holder) if holder.machine == own.machine else probe.is_dead(run, holder)


def _create(run: Path, holder: Holder) -> bool:
    """Create the lease file, complete, by link. Returns False if another start was first."""
    beside, path = (
        run / names.LEASE / f".{holder.incarnation}-{holder.host}-{holder.pid}",
        names.lease_file(run, holder.incarnation),
    )
    write_atomic(beside, json.dumps(asdict(holder)))
    try:
        os.link(beside, path)
    except FileExistsError:
        return beside.stat().st_nlink == 2  # the link was made, and the file server's answer got lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _create_empty(path):
            return False
        os.replace(beside, path)
        if newest_incarnation(run) != holder.incarnation:  # this start was held up for so long that it counted as dead
            path.unlink()
            return False
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(run / names.LEASE)
    return True


def _create_empty(path: Path) -> bool:
    """Create the file empty, on a file system without links. Returns False if another start was first."""
    try:
        path.open("x").close()
        return True
    except FileExistsError:
        return False


def _is_being_made(run: Path, incarnation: int) -> bool:
    with suppress(FileNotFoundError):
        found = names.lease_file(run, incarnation).lstat()
        return found.st_size == 0 and file_clock(run / names.LEASE) - found.st_mtime < _EXIT_S
    return False
