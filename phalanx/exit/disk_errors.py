"""Turn write errors of a run folder (disk full, quota, read-only, I/O error) into NoRoom, with the space that is free."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .codes import NoRoom

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE)
_OURS = (
    *_DISK,
    errno.EACCES,
    errno.EPERM,
    errno.EINVAL,
    errno.ELOOP,
)  # for files that only this run writes, such as one made immutable
_OF_TORCH = ("PytorchStreamWriter failed", "unexpected pos", "inline_container")
_GIB = 2**30
_PROBE = 2**20  # bytes


@contextmanager
def writing(folder: Path, *, ours: bool = True) -> Iterator[None]:
    """Turn a write error below `folder` into NoRoom. `ours`: the folder was writable before, so that a permission error
    counts as well; at the first write it is a config error."""
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None or (number and number not in (_OURS if ours else _DISK)):
            raise
        where = getattr(error, "filename", None) or folder
        why = getattr(error, "strerror", None) or os.strerror(number or _probed(folder))
        raise NoRoom(
            f"{where} cannot be written: {why}. {_free(folder)}. What was saved before is kept. Make room or mend that, "
            "and the same command continues"
        ) from error


def _number(error: Exception) -> int | None:
    """errno of a write error; 0 for a write error without one, as torch raises; None for any other exception."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))  # as of safetensors
    if told:
        return int(told[1])
    return 0 if isinstance(error, RuntimeError) and any(word in str(error) for word in _OF_TORCH) else None


def _probed(folder: Path) -> int:
    """errno of a test write to `folder` now; EIO if it succeeds."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _PROBE)
    except OSError as error:
        return error.errno or errno.EIO
    return errno.EIO


def _free(folder: Path) -> str:
    with suppress(OSError):
        at = next(path for path in (folder, *folder.parents) if path.exists())
        found = os.statvfs(at)
        bytes_free, size = found.f_bavail * found.f_frsize / _GIB, found.f_blocks * found.f_frsize / _GIB
        return f"{folder} has {bytes_free:.3g} GiB free of {size:.3g}, and room for {found.f_favail} more files"
    return f"{folder} does not tell what is free"
