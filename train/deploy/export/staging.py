"""A folder that appears whole or not at all, in the place of one of before."""

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phalanx.common.files import default_mode, sync_file, sync_folder
from phalanx.exit.codes import ConfigError
from phalanx.exit.disk_errors import writing

_UNDER_WAY = ".under-way-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class Staging:
    """A folder beside `target`, which is locked for as long as this process lives."""

    def __init__(self, target: Path) -> None:
        """Raises ConfigError where nothing can be written there, NoRoom where the disk is full."""
        self._target = target
        try:
            with writing(target.parent, ours=False):
                target.parent.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(target)
                self.folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{_UNDER_WAY}"))
                self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
                with suppress(OSError):  # a network's file system may lock files alone
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"{target} cannot be written: {error.strerror}. Type --out with a folder that can be"
            ) from None

    def commit(self) -> None:
        """Put the folder in the place of `target`, by one rename."""
        self.folder.chmod(default_mode() | (default_mode() & 0o444) >> 2)  # who may read may enter
        for path in self.folder.rglob("*"):
            if path.is_file():
                path.chmod(default_mode())
                sync_file(path)
        sync_folder(self.folder)
        try:
            os.rename(self.folder, self._target)  # where there is none, or an empty one
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _exchange(self.folder, self._target)
        sync_folder(self._target.parent)

    def remove(self) -> None:
        """What was staged, or what `commit` has put aside."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


@contextmanager
def staged(target: Path) -> Iterator[Staging]:
    """Inside, files are written to `.folder`; afterwards nothing is left of it but what was committed."""
    made = Staging(target)
    try:
        with writing(target.parent):
            yield made
    finally:
        made.remove()


def _exchange(one: Path, other: Path) -> None:
    """Each in the place of the other, at once where the file system can (renameat2)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = (os.fsencode(one), os.fsencode(other))
    if renameat2 is not None and renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return
    aside = one.with_name(f"{one.name}-before")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def _remove_abandoned(target: Path) -> None:
    """Of exports that were killed: their folders are locked by nobody."""
    for folder in target.parent.glob(f".{target.name}{_UNDER_WAY}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
