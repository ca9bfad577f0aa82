"""Names that one process of this machine has at a time, whichever user's: they live in the kernel and end with it.

No file of such a name can be removed, replaced or left behind, and nobody needs a right to it.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_ASKERS = 4096  # that may ask for its holder while a name is held


def bound(name: str) -> socket.socket | None:
    """Take a name until this socket is closed, by all that inherit it, too; None where another has it."""
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
def holding(name: str) -> Iterator[None]:
    """Have a name meanwhile, where nobody else has it. What is started meanwhile does not inherit it."""
    taken = bound(name)
    try:
        yield
    finally:
        if taken is not None:
            taken.close()


@contextmanager
def asking(name: str, timeout_s: float) -> Iterator[socket.socket]:
    """A socket to whoever has a name, which ends when they let go. Raises OSError where nobody has it."""
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(timeout_s)
        asker.connect(_address(name))
        yield asker


def is_taken(name: str) -> bool:
    try:
        with asking(name, 1.0):
            return True
    except TimeoutError:
        return True  # by somebody whom too many ask
    except OSError:
        return False


def _address(name: str) -> str:
    return f"\0phalanx-{name}"
