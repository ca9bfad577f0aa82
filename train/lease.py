"""One start at a time writes to a run's folder, and an older one that wakes up again reaches nothing that readers see.

`lease/` holds one file for every start that the run had, named by its incarnation: 1, 2, 3 … The newest holds the run.
Its process touches the file while it lives, and takes it away when it leaves in good order. Who wants the run when it
has a holder finds out whether that one is dead: on the same machine by its process, elsewhere by the age of its last
touch, or because Slurm says so by starting the same job once more.

A requeue is no proof of death. A machine that was cut off may go on writing while its job already runs elsewhere, so
whatever readers see is fenced: lines by replacing their files (an old process writes on into the old ones), checkpoints
by the incarnation in their manifest, and all else by looking for a newer incarnation first.
"""

import errno
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from train.files import sync_folder, write_whole
from train.outcome import ConfigError

BEAT_S = 5.0  # between touches
DEAD_S = 30.0  # age of the last touch from which a holder on another machine counts as dead
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

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """The hold on a run's folder, until `close` or the end of the process."""

    def __init__(self, run: Path, incarnation: int) -> None:
        self.incarnation = incarnation
        self._path = _path(run, incarnation)
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
        self._over.set()

    def withdraw(self) -> None:
        """Give the run back as if it had never been held: nothing was written."""
        if not self._over.is_set():
            with suppress(OSError):
                self._path.unlink()
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with suppress(OSError):
                os.utime(self._path)


def live(run: Path) -> Holder | None:
    """Who holds the run right now: None when nobody does, or who did is dead as far as can be told from here."""
    holder = _read(run, _newest(run))
    if holder is None or _released(_path(run, holder.incarnation)).exists():
        return None
    if holder.machine == _machine():
        return holder if _began(holder.pid) == holder.began else None
    touched = _path(run, holder.incarnation).stat().st_mtime
    return holder if time.time() - touched < DEAD_S else None


def is_here(holder: Holder) -> bool:
    """Whether its process is one of this machine's."""
    return holder.machine == _machine()


def is_earlier_start(holder: Holder, environ: Mapping[str, str]) -> bool:
    """Whether it is of this process's own job, which Slurm has begun anew since."""
    return _came_before(holder, *_job(environ))


def held_by_this_launch(run: Path, environ: Mapping[str, str]) -> bool:
    """Whether an earlier attempt of this launch held the run; taken for true where attempts cannot be told apart."""
    launch = _launch(environ)
    return launch is None or any(holder.launch == launch for holder, _ in holders(run))


def holders(run: Path) -> list[tuple[Holder, float]]:
    """All starts that held the run, the oldest first, each with when it was last seen to live (seconds since 1970)."""
    found = ((_read(run, number), _path(run, number)) for number in _incarnations(run))
    return [(holder, path.stat().st_mtime) for holder, path in found if holder is not None]


def claim(run: Path, attempt: int, environ: Mapping[str, str]) -> Lease:
    """Hold the run in the folder `run`; `attempt` counts how often a launcher began this very command again.

    Raises ConfigError when a start that lives holds it. The launcher's next attempt waits for the one before, two
    minutes at most; one that Slurm began anew takes the run over at once.
    """
    try:
        return _claimed(run, attempt, environ)
    except OSError as error:
        raise ConfigError(
            f"{run} cannot be held: {error.strerror}. Type run.root=… with a folder to write to"
        ) from None


def _claimed(run: Path, attempt: int, environ: Mapping[str, str]) -> Lease:
    (run / "lease").mkdir(exist_ok=True)
    patience = time.monotonic() + (_REQUEUE_S if attempt else _DYING_S)
    while True:
        newest = _newest(run)
        own = _self(newest + 1, environ)
        holder = _read(run, newest) if newest else None
        if holder is None or _is_over(run, holder, own):
            if not _is_being_made(run, newest) and _create(run, own):
                return Lease(run, own.incarnation)
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
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=run / "lease", prefix=".look-"):
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


def _is_over(run: Path, holder: Holder, own: Holder) -> bool:
    """Whether the run may be taken from `holder`."""
    if _released(_path(run, holder.incarnation)).exists():
        return True
    if _came_before(holder, own.job, own.requeues):
        return True
    if holder.machine == own.machine:
        return _began(holder.pid) != holder.began
    return _age(run, holder.incarnation) > DEAD_S


def _came_before(holder: Holder, job: str | None, requeues: int) -> bool:
    return holder.job is not None and holder.job == job and holder.requeues < requeues


def _age(run: Path, incarnation: int) -> float:
    """Seconds since the holder's last touch, by the clock of the file system, which all machines share."""
    with tempfile.NamedTemporaryFile(dir=run / "lease", prefix=".now-") as now, _path(run, incarnation).open() as file:
        return os.fstat(now.fileno()).st_mtime - os.fstat(file.fileno()).st_mtime


def _create(run: Path, holder: Holder) -> bool:
    """Whether this start was the first to take the number. The file is whole from the beginning."""
    beside, path = run / "lease" / f".{holder.incarnation}-{holder.host}-{holder.pid}", _path(run, holder.incarnation)
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
    sync_folder(run / "lease")
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
        return _path(run, incarnation).stat().st_size == 0 and _age(run, incarnation) < _DYING_S
    return False


def _self(incarnation: int, environ: Mapping[str, str]) -> Holder:
    pid, host, (job, requeues) = os.getpid(), socket.gethostname(), _job(environ)
    began = _began(pid) or 0
    return Holder(incarnation, host, _machine(), pid, began, job, requeues, launch=_launch(environ), since=time.time())


def _job(environ: Mapping[str, str]) -> tuple[str | None, int]:
    """Slurm's job, and how often it was requeued."""
    return environ.get("SLURM_JOB_ID"), int(environ.get("SLURM_RESTART_COUNT", "0"))


def _launch(environ: Mapping[str, str]) -> str | None:
    found = environ.get("PHALANX_LAUNCH", environ.get("TORCHELASTIC_RUN_ID"))
    return None if found == "none" else found  # as torchrun calls a launch that it was told no word for


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _began(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's; None for one that is gone or only waits to be buried."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def _incarnations(run: Path) -> list[int]:
    return sorted(int(path.stem) for path in (run / "lease").glob("[0-9]" * 8 + ".json"))


def _newest(run: Path) -> int:
    return max(_incarnations(run), default=0)


def _read(run: Path, incarnation: int) -> Holder | None:
    """None where the file is not there or none of ours, which no living start leaves behind. Raises other OSErrors."""
    try:
        found = json.loads(_path(run, incarnation).read_text())
        if found["incarnation"] != incarnation:
            return None
        return Holder(**{known.name: found[known.name] for known in fields(Holder) if known.name in found})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _path(run: Path, incarnation: int) -> Path:
    return run / "lease" / f"{incarnation:08d}.json"


def _released(path: Path) -> Path:
    return path.with_suffix(".released")
