"""One start at a time writes to a run's folder."""

import errno
import fcntl
import logging
import os
import socket
import time
from io import FileIO
from pathlib import Path

from train.outcome import ConfigError

_DYING_S = 5.0  # a start that was killed may hold its lock until the system has buried it
_LOOK_S = 0.05

logger = logging.getLogger(__name__)


def hold(folder: Path) -> FileIO:
    """Lock `folder` for as long as what is returned stays open, at most until this process ends.

    The lock is of the kind that a process does not hand on to its children (POSIX record lock). Raises ConfigError when
    a process of this machine holds it. That of another machine is no more than a warning: when such a machine is cut
    off, its lock outlives it.
    """
    file = (folder / ".lock").open("r+b" if (folder / ".lock").exists() else "w+b", buffering=0)
    try:
        if not _taken_within(file, _DYING_S):
            _explain(folder, file.read(256).decode(errors="replace"))
        file.truncate(0)
        file.write(f"{os.getpid()} {socket.gethostname()}".encode())
    except BaseException:
        file.close()
        raise
    return file


def _taken_within(file: FileIO, wait_s: float) -> bool:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning("this file system has no locks (%s): start one command a run at a time", error.strerror)
                return True
            if time.monotonic() >= until:
                return False
        time.sleep(_LOOK_S)


def _explain(folder: Path, holder: str) -> None:
    pid, _, host = holder.partition(" ")
    if host != socket.gethostname():
        logger.warning("%s may still be in use by process %s on %s", folder, pid or "?", host or "another machine")
        return
    raise ConfigError(
        f"{folder} is in use: process {pid} trains this run right now. Wait for it, end it, or type run.name=… for "
        "another run"
    )
