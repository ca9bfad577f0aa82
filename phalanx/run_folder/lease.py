"""One start at a time writes to a run's folder, and an older one that wakes up again reaches nothing that readers see.

`lease/` holds one file for every start that the run had, named by its incarnation: 1, 2, 3 … The newest holds the run.
Its process touches the file while it lives, and takes it away when it leaves in good order. Who wants the run when it
has a holder finds out whether that one is dead: on the same machine by its process, elsewhere by whether it still touches
its file, or because Slurm says so by starting the same job once more. No two machines' clocks are held against each other.
A process that holds a run keeps `lease/` open, so that a copy of the folder, or a file that somebody wrote, names nobody.

A requeue is no proof of death. A machine that was cut off may go on writing while its job already runs elsewhere, so
whatever readers see is fenced: lines by replacing their files (an old process writes on into the old ones), checkpoints
by the incarnation in their manifest, and all else by looking for a newer incarnation first.
"""

import errno
import json
import logging
import math
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from ..common.files import opened, read_text, sync_folder, write_whole
from ..exit.codes import ConfigError
from ..exit.disk_errors import writing
from . import names

BEAT_S = 5.0  # between touches
DEAD_S = 30.0  # without a touch, after which a holder on another machine counts as dead
_BEATS = 1.6  # within which a holder that lives has touched its file, whatever the clocks say
_LONG_DEAD_S = 3600.0  # age of the last touch, by the file server's clock, that no clock's error explains
_AHEAD_S = 2.0  # by which a touch may seem to lie in the future
_SMALL = 2**16  # bytes
_NAMED = re.compile(r"[0-9]{8}\.json")
_DYING_S = 5.0  # a process that was killed may need that long to be gone
_REQUEUE_S = 120.0  # how long a start that the launcher began again waits for the one before
_LOOK_S = 0.05
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)  # as of FAT, and of some FUSE file systems

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who a start is. `began` is the process's start in clock ticks since its machine's; `machine` is where `pid` means
    something: one start of a machine, and one space of process numbers on it.
    """

    incarnation: int
    host: str
    machine: str
    pid: int
    began: int
    job: str | None = None
    requeues: int = 0  # of that job
    from_step: int | None = None  # of the checkpoint that it continued from; None until it is known
    launch: str | None = None  # what all attempts of one launch share; None where the launcher has no word for it
    since: float | None = None  # when it took the run, seconds since 1970
    opened: bool = False  # its process keeps `lease/` open, as those of older versions do not

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """The hold on a run's folder, until `close` or the end of the process."""

    def __init__(self, run: Path, incarnation: int, folder: int) -> None:
        """`folder` is a descriptor of `lease/`."""
        self.incarnation = incarnation
        self._path = _path(run, incarnation)
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def follow(self, run: Path) -> None:
        """The folder goes by another name now."""
        self._path = _path(run, self.incarnation)

    def close(self) -> None:
        """Give the run back. The file stays, for it says from which step on older starts do not count."""
        if not self._over.is_set():
            with suppress(OSError):
                _released(self._path).touch()
        self._end()

    def withdraw(self) -> None:
        """Give the run back as if it had never been held: nothing was written."""
        if not self._over.is_set():
            with suppress(OSError):
                self._path.unlink()
        self._end()

    def _end(self) -> None:
        if not self._over.is_set():
            os.close(self._folder)
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self._path, follow_symlinks=False)


class LivenessProbe:
    """Looks at holders, as often as somebody wants to know, and remembers which of them touched their files meanwhile."""

    def __init__(self, *, waits: bool = True) -> None:
        """Who asks about many runs does not wait for each, but once for those that are `unsure` in the end."""
        self.unsure: dict[Path, Holder] = {}
        self._waits = waits
        self._seen: dict[Path, tuple[int, float]] = {}  # of a file: its last touch, and when that was first seen here
        self._clocks: dict[int, float] = {}  # of a file system: how far its clock is ahead of time.monotonic()

    def live(self, run: Path) -> Holder | None:
        """Who holds the run right now: None when nobody does, or who did is dead as far as can be told from here.

        Takes a beat or two where one look does not tell. Raises OSError for a run that is not shown to us.
        """
        if (holder := _held(run)) is None:
            return None
        if (lives := self._lives(run, holder)) is None:
            self.unsure[run] = holder
            lives = self.settle()[run] if self._waits else False
        return holder if lives else None

    def settle(self) -> dict[Path, bool]:
        """Wait until it is told of all that are unsure whether they live."""
        told: dict[Path, bool | None] = dict.fromkeys(self.unsure)
        end_s = time.monotonic() + _BEATS * BEAT_S
        while None in told.values() and time.monotonic() < end_s:
            time.sleep(BEAT_S / 10)
            told |= {run: self._lives(run, self.unsure[run]) for run, lives in told.items() if lives is None}
        self.unsure = {}
        return {run: bool(lives) for run, lives in told.items()}

    def is_dead(self, run: Path, holder: Holder) -> bool:
        """Whether one of another machine has had the time to touch its file and has not. Never by a clock alone."""
        untouched_s, age_s = self._look(run, holder)
        return untouched_s > DEAD_S or (untouched_s > _BEATS * BEAT_S and age_s > DEAD_S)

    def ahead_s(self, run: Path) -> float:
        """How many seconds this machine's clock is ahead of that of the file system that the run lies on."""
        return time.time() - time.monotonic() - self._clock(run / names.LEASE, (run / names.LEASE).stat().st_dev)

    def _lives(self, run: Path, holder: Holder) -> bool | None:
        """None: one look does not tell."""
        if holder.machine == machine():
            return _is_process(run, holder)
        before = self._seen.get(_path(run, holder.incarnation))
        try:
            untouched_s, age_s = self._look(run, holder)
        except FileNotFoundError:
            return False
        if before is not None and before != self._seen[_path(run, holder.incarnation)]:
            return True
        if untouched_s > _BEATS * BEAT_S:
            return -_AHEAD_S < age_s < DEAD_S and untouched_s < DEAD_S
        if -_AHEAD_S < age_s < DEAD_S:
            return True
        return False if age_s > _LONG_DEAD_S else None

    def _look(self, run: Path, holder: Holder) -> tuple[float, float]:
        """Seconds since a touch was first seen here, and since it was made by the file server's clock."""
        path, now = _path(run, holder.incarnation), time.monotonic()
        with os.fdopen(opened(path)) as file:  # for NFS tells of a file as it is when it is opened
            found = os.fstat(file.fileno())
        if self._seen.get(path, (None, 0.0))[0] != found.st_mtime_ns:
            self._seen[path] = (found.st_mtime_ns, now)
        return now - self._seen[path][1], self._clock(path.parent, found.st_dev) + now - found.st_mtime

    def _clock(self, folder: Path, device: int) -> float:
        if device not in self._clocks:
            self._clocks[device] = _now(folder) - time.monotonic()
        return self._clocks[device]


def live(run: Path) -> Holder | None:
    """As `LivenessProbe` tells, for who looks once."""
    return LivenessProbe().live(run)


def is_process_of(run: Path, holder: Holder) -> bool | None:
    """Whether the process that `holder` names is one that holds this very folder, so that it may be sent a signal.

    None: it is another user's, whose files nobody else is told.
    """
    return began(holder.pid) == holder.began and _has_open(holder.pid, run / names.LEASE)


def is_here(holder: Holder) -> bool:
    """Whether its process is one of this machine's."""
    return holder.machine == machine()


def is_earlier_start(holder: Holder, environ: Mapping[str, str]) -> bool:
    """Whether it is of this process's own job, which Slurm has begun anew since."""
    return _came_before(holder, *_job(environ))


def held_by_this_launch(run: Path, environ: Mapping[str, str]) -> bool:
    """Whether an earlier attempt of this launch held the run; taken for true where attempts cannot be told apart."""
    launch = _launch(environ)
    return launch is None or any(holder.launch == launch for holder, _ in holders(run))


def holders(run: Path) -> list[tuple[Holder, float]]:
    """All starts that held the run, the oldest first, each with when it was last seen to live (seconds since 1970)."""
    found = []
    for number in _incarnations(run):
        with suppress(FileNotFoundError):  # it was given back meanwhile
            if (holder := _read(run, number)) is not None:
                found.append((holder, _path(run, number).lstat().st_mtime))
    return found


def claim(run: Path, attempt: int, environ: Mapping[str, str]) -> Lease:
    """Hold the run in the folder `run`; `attempt` counts how often a launcher began this very command again.

    Raises ConfigError when a start that lives holds it. The launcher's next attempt waits for the one before, two
    minutes at most; one that Slurm began anew takes the run over at once.
    """
    try:
        with writing(run, ours=False):
            return _claimed(run, attempt, environ)
    except OSError as error:
        raise ConfigError(
            f"{run} cannot be held: {error.strerror}. Type run.root=… with a folder to write to"
        ) from None


def _claimed(run: Path, attempt: int, environ: Mapping[str, str]) -> Lease:
    (run / names.LEASE).mkdir(exist_ok=True)
    folder = os.open(run / names.LEASE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Lease(run, _won(run, attempt, environ), folder)
    except BaseException:
        os.close(folder)
        raise


def _won(run: Path, attempt: int, environ: Mapping[str, str]) -> int:
    """The incarnation that this process is, once the one before is over."""
    patience, looks = time.monotonic() + (_REQUEUE_S if attempt else _DYING_S), LivenessProbe()
    while True:
        newest = _newest(run)
        own = _self(newest + 1, environ)
        holder = _read(run, newest) if newest else None
        if holder is None or _is_over(run, holder, own, looks):
            if not _is_being_made(run, newest) and _create(run, own):
                return own.incarnation
        elif time.monotonic() > patience + (DEAD_S if holder.machine != own.machine else 0.0):
            raise ConfigError(
                f"{run} is in use: {holder} trains this run right now. Wait for it, end it, or type run.name=… for "
                "another run"
            )
        time.sleep(_LOOK_S)


def taken(run: Path, incarnation: int) -> str | None:
    """What to say where another start has taken the run over from `incarnation`."""
    newest = _newest(run)
    if newest <= incarnation:
        return None
    holder = _read(run, newest) or "another process"
    return f"{holder} has taken over {run}, so this process leaves and saves nothing more"


def check(run: Path, incarnation: int) -> None:
    """Raise ConfigError when another start has taken the run over. Before each change that readers see."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=run / names.LEASE, prefix=".look-"):
        pass  # NFS shows a folder as it was up to a minute ago, unless this machine has just changed it
    if (message := taken(run, incarnation)) is not None:
        raise ConfigError(message)


def begins_at(run: Path, incarnation: int, step: int) -> None:
    """Say where this start goes on from: what older ones still commit beyond that step does not count."""
    holder = _read(run, incarnation)
    assert holder is not None, "it was claimed"
    write_whole(_path(run, incarnation), json.dumps(asdict(replace(holder, from_step=step))))


def fenced(run: Path, incarnation: int, step: int) -> bool:
    """Whether a checkpoint at `step` by `incarnation` came after a newer start had gone on from an earlier step."""
    later = (_read(run, number) for number in _incarnations(run) if number > incarnation)
    return any(holder is not None and holder.from_step is not None and holder.from_step < step for holder in later)


def _is_over(run: Path, holder: Holder, own: Holder, looks: LivenessProbe) -> bool:
    """Whether the run may be taken from `holder`."""
    if _was_released(run, holder.incarnation):
        return True
    if _came_before(holder, own.job, own.requeues):
        return True
    return not _is_process(run, holder) if holder.machine == own.machine else looks.is_dead(run, holder)


def _held(run: Path) -> Holder | None:
    """The newest holder, who has not given the run back."""
    holder = _read(run, _newest(run))
    return None if holder is None or _was_released(run, holder.incarnation) else holder


def _was_released(run: Path, incarnation: int) -> bool:
    return os.path.lexists(_released(_path(run, incarnation)))


def _is_process(run: Path, holder: Holder) -> bool:
    """Whether the process that `holder` names on this machine lives, and holds this folder as far as can be told."""
    if began(holder.pid) != holder.began:
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


def _came_before(holder: Holder, job: str | None, requeues: int) -> bool:
    return holder.job is not None and holder.job == job and holder.requeues < requeues


def _now(folder: Path) -> float:
    """Seconds since 1970 by the clock of a folder's file system, or by this machine's where nothing can be written."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".now-") as now:
        return os.fstat(now.fileno()).st_mtime
    return time.time()


def _create(run: Path, holder: Holder) -> bool:
    """Whether this start was the first to take the number. The file is whole from the beginning."""
    beside, path = (
        run / names.LEASE / f".{holder.incarnation}-{holder.host}-{holder.pid}",
        _path(run, holder.incarnation),
    )
    write_whole(beside, json.dumps(asdict(holder)))
    try:
        os.link(beside, path)
    except FileExistsError:
        return beside.stat().st_nlink == 2  # made, and the file server's answer got lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _take(path):
            return False
        os.replace(beside, path)
        if _newest(run) != holder.incarnation:  # this start was held up for so long that it counted as dead
            path.unlink()
            return False
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(run / names.LEASE)
    return True


def _take(path: Path) -> bool:
    """Whether this start was the first to make the file, where a file system knows no links. It is empty for a moment."""
    try:
        path.open("x").close()
        return True
    except FileExistsError:
        return False


def _is_being_made(run: Path, incarnation: int) -> bool:
    with suppress(FileNotFoundError):
        found = _path(run, incarnation).lstat()
        return found.st_size == 0 and _now(run / names.LEASE) - found.st_mtime < _DYING_S
    return False


def _self(incarnation: int, environ: Mapping[str, str]) -> Holder:
    pid, host, (job, requeues) = os.getpid(), socket.gethostname(), _job(environ)
    return Holder(
        incarnation,
        host,
        machine(),
        pid,
        began(pid) or 0,
        job,
        requeues,
        launch=_launch(environ),
        since=time.time(),
        opened=True,
    )


def _job(environ: Mapping[str, str]) -> tuple[str | None, int]:
    """Slurm's job, and how often it was requeued."""
    return environ.get("SLURM_JOB_ID"), int(environ.get("SLURM_RESTART_COUNT", "0"))


def _launch(environ: Mapping[str, str]) -> str | None:
    found = environ.get("PHALANX_LAUNCH", environ.get("TORCHELASTIC_RUN_ID"))
    return None if found == "none" else found  # as torchrun calls a launch that it was told no word for


def machine() -> str:
    """Where process numbers mean the same: one start of a machine, and one space of them on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def began(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's; None for one that is gone or only waits to be buried."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def _incarnations(run: Path) -> list[int]:
    """Raises OSError where the folder of leases is not shown to us."""
    try:
        return sorted(int(name[:8]) for name in os.listdir(run / names.LEASE) if _NAMED.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _newest(run: Path) -> int:
    return max(_incarnations(run), default=0)


def _read(run: Path, incarnation: int) -> Holder | None:
    """None where the file is not there or none of ours, which no living start leaves behind. Raises other OSErrors."""
    try:
        found = json.loads(read_text(_path(run, incarnation), _SMALL))
        holder = Holder(**{known.name: found[known.name] for known in fields(Holder) if known.name in found})
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO, errno.ENOTDIR):  # no regular file
            return None
        raise
    return holder if holder.incarnation == incarnation and _is_ours(holder) else None


def _is_ours(holder: Holder) -> bool:
    """Whether what a file says can have been written by a start: to some numbers a signal goes to more than a process."""
    numbers = (holder.incarnation, holder.pid, holder.began, holder.requeues)
    texts = [holder.host, holder.machine, *(text for text in (holder.job, holder.launch) if text is not None)]
    counted = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    dated = holder.since is None or (type(holder.since) is float and math.isfinite(holder.since))
    stepped = holder.from_step is None or type(holder.from_step) is int
    spelt = all(type(text) is str for text in texts) and type(holder.opened) is bool
    return counted and dated and stepped and spelt and 0 < holder.pid < 2**31


def _path(run: Path, incarnation: int) -> Path:
    return names.lease_file(run, incarnation)


def _released(path: Path) -> Path:
    return path.with_suffix(names.RELEASED)
