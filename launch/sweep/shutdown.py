"""Shutdown of a sweep: the grace period of running trials, and the message for a disk that cannot be written to."""

import errno
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from phalanx.exit.codes import ConfigError, ExitCode

_TELL_S = 5.0  # between two words of what is waited for
NO_ROOM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN),
    *(errno.EACCES, errno.EPERM),
}


class Shutdown:
    """`why` is the code to leave with; runs have `grace_s` seconds to save from now on."""

    def __init__(self, why: ExitCode, grace_s: float) -> None:
        self.why = why
        self._grace_s = grace_s
        self._began = self._told = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s of {self._grace_s:g} s; Ctrl-C again ends at once"

    def is_over(self) -> bool:
        return time.monotonic() - self._began > self._grace_s

    def is_message_due(self) -> bool:
        """Whether a person has heard nothing for a while. Once for each time."""
        now = time.monotonic()
        due = now - self._told > _TELL_S
        self._told = now if due else self._told
        return due


def unwritable(folder: Path, error: OSError) -> ConfigError:
    """What to say where a sweep's folder, or another that it needs, cannot be written to."""
    free = "?"
    with suppress(OSError):
        free = f"{shutil.disk_usage(folder).free / 2**20:.0f}"
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else folder
    return ConfigError(
        f"{where} cannot be written: {error.strerror} ({free} MiB free at {folder}). What could be saved is saved. Make "
        "room, or mend it, then type the same command, which continues"
    )
