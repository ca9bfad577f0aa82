"""Machine-wide locks between processes of all users: abstract Unix sockets, which the kernel frees when a process ends.

There is no lock file that could be removed, replaced or left behind, and no permission is needed.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_ASKERS = 4096  # processes that may ask who holds a lock


def try_lock(name: str) -> socket.socket | None:
    """Lock `name` until this socket is closed by all processes that inherited it; None where another holds the lock."""
    taken = socket.socket(socket.AF_UNIX)
    try:
        taken.bind(_address(name))
        taken.listen(_ASKERS)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return taken


@contextmanager
def holding_lock(name: str) -> Iterator[None]:
    """Hold the lock inside the block, unless another process holds it. Child processes do not inherit it."""
    taken = try_lock(name)
    try:
        yield
    finally:
        if taken is not None:
            taken.close()


@contextmanager
def connected_to_holder(name: str, timeout_s: float) -> Iterator[socket.socket]:
    """A socket to the process that holds the lock, closed when it unlocks. Raises OSError where none does."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(timeout_s)
        asker.connect(_address(name))
        yield asker


def is_locked(name: str) -> bool:
    try:
        with connected_to_holder(name, 1.0):
            return True
    except TimeoutError:
        return True  # the holder's backlog is full
    except OSError:
        return False


def _address(name: str) -> str:
    return f"\0phalanx-{name}"
