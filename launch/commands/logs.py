"""`phalanx logs`: prints and follows the log of a rank, over restarts; or the job's log, where no rank wrote one."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import click

from phalanx.common.escaping import printable
from phalanx.common.files import open_regular
from phalanx.common.stdio import redirect_to_null
from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say
from phalanx.run_folder import lease_holders, names
from phalanx.run_folder.liveness import LivenessProbe

from ..common.find_run import find_run
from ..host.machine_locks import is_locked
from ..state.submitted import Submitted, submitted
from . import backend as backends

_POLL_S = 0.2
_ASK_S = 10.0  # between two questions to the cluster, which many others ask, too
_PIECE = 2**16  # characters


@click.command()
@click.argument("run")
@click.option("--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Whose log.")
@click.option(*("-f", "--follow"), is_flag=True, help="Go on until the run ends, over its restarts.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def logs(run: str, rank: int, follow: bool, root: Path) -> None:
    """Print the log of a rank of RUN, a folder or the name of one. Where there is none yet, that of its job."""
    jobs = _submitted(root)
    folder = find_run(run, root, jobs)
    path, job = folder / names.LOGS / names.rank_log(rank), jobs.get(folder.resolve())
    try:
        if not os.path.lexists(path):
            if job is None or job.log is None or not job.log.exists():
                raise ConfigError(f"--rank={rank}: {folder.name} has no {path.name}. {_there(path.parent, job)}")
            say(f"phalanx: {folder.name} has no {path.name} yet; this is its job's log, {job.log}")
            job_goes_on = _Follower(folder, root).queued
            _print(job.log, lambda: follow and not os.path.lexists(path) and job_goes_on())
        if os.path.lexists(path):
            lives = _Follower(folder, root).goes_on
            _print(path, lambda: follow and lives())
    except BrokenPipeError:
        redirect_to_null(sys.stdout.fileno())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except KeyboardInterrupt:
        return


def _submitted(root: Path) -> dict[Path, Submitted]:
    return submitted(root, lambda name: backends.backend_named(name, os.environ))


def _there(folder: Path, job: Submitted | None) -> str:
    if ranks := names.ranks_with_logs(folder):
        return f"There are logs of ranks {', '.join(map(str, ranks))}"
    if job is not None and job.queued is not None:
        return f"Its job {job.queued.job} is {job.queued.state.lower()} ({job.queued.reason}), and has no log yet"
    return "There is no log of any rank yet"


class _Follower:
    """Whether a run may print more."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root, self._probe = folder, root, LivenessProbe()
        self._queued, self._asked_s = False, float("-inf")

    def goes_on(self) -> bool:
        """Whether the run is alive, or is not finished and its launcher or job exists, which may restart it."""
        if self._probe.live(self._folder) is not None:
            return True
        if (self._folder / names.SUMMARY).exists():
            return False
        last = max(lease_holders.holders(self._folder), key=lambda found: found[0].incarnation, default=None)
        launch = None if last is None else last[0].launch
        return launch is not None and (is_locked(f"launch-{launch}") or self.queued())

    def queued(self) -> bool:
        """Whether a job of it waits or runs."""
        if time.monotonic() - self._asked_s > _ASK_S:
            found = _submitted(self._root).get(self._folder.resolve())
            self._queued, self._asked_s = found is not None and found.queued is not None, time.monotonic()
        return self._queued


def _print(path: Path, goes_on: Callable[[], bool]) -> None:
    """Print a file, and follow it while `goes_on()`; from the beginning again where it is replaced."""
    while True:
        with os.fdopen(open_regular(path), encoding="utf-8", errors="replace") as file:
            while True:
                more = goes_on()  # before reading, so that the last lines are read
                _copy(file)
                if not more:
                    return
                if _is_replaced(path, file):
                    break
                time.sleep(_POLL_S)


def _is_replaced(path: Path, file: TextIO) -> bool:
    try:
        return path.lstat().st_ino != os.fstat(file.fileno()).st_ino
    except OSError:  # renamed, and not created anew yet
        return False


def _copy(file: TextIO) -> None:
    """What is there now, to standard output."""
    while text := file.read(_PIECE):
        sys.stdout.buffer.write(printable(text).encode("utf-8", "replace"))
    sys.stdout.buffer.flush()
