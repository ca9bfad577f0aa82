"""Non-blocking standard output and error of a rank: no slow or closed pipe and no encoding stops it."""

import io
import os
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, TextIO, final

_PENDING_BYTES = 1 << 18  # kept for a reader that is late; what is older than that is dropped
_FLUSH_S = 0.5  # how long a rank that leaves waits for such a reader


@final
class Output(io.TextIOBase):
    """Text for the file descriptor of `stream`, written at once and never waited for. No failure there is raised.

    A terminal that was stopped (Ctrl-S) or a pipe that nobody reads takes nothing for now: the text is kept, up to a
    limit, until a later call. Once the reader is gone, what else the process writes there goes to the null device.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._pending = b""
        self._dropped = 0
        self._send, self._let_go = _sender(self._descriptor)
        self._turn = threading.RLock()  # a signal's handler may interrupt a call with one of its own

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the base class
        return self._stream.encoding or "ascii"

    @property
    def buffer(self) -> BinaryIO:
        """For those who write bytes: the stream's own, which waits."""
        return self._stream.buffer

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode(self.encoding, "replace")
        with self._turn:
            if len(self._pending) + len(data) > _PENDING_BYTES:
                self._advance()
            if len(self._pending) + len(data) > _PENDING_BYTES:
                self._dropped += text.count("\n")
            else:
                self._pending += self._told_of_gap() + data
            if "\n" in text or "\r" in text:
                self._advance()
        return len(text)

    def flush(self) -> None:
        with self._turn:
            self._advance()

    def close(self) -> None:
        """Give back what was opened beside the stream, which stays as it is."""
        if not self.closed:
            super().close()
            self._let_go()

    def drain(self) -> None:
        """Wait for a late reader, but not for long. To be called before the process ends."""
        end_s = time.monotonic() + _FLUSH_S
        self.flush()
        while self._pending and (left_s := end_s - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left_s)
            self.flush()

    def _told_of_gap(self) -> bytes:
        if not self._dropped:
            return b""
        lines, self._dropped = self._dropped, 0
        return f"[{lines} lines are left out here: nobody read them in time]\n".encode("ascii")

    def _advance(self) -> None:
        """Send what can be sent without a wait."""
        try:
            while self._pending:
                self._pending = self._pending[self._send(self._pending) :]
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError):
            self._pending = b""
            with suppress(OSError):
                let_go(self._descriptor)
            self._send = len


def let_go(descriptor: int) -> None:
    """What is written there from now on goes nowhere, also what is written at the very end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _sender(descriptor: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """What writes bytes to `descriptor` without a wait and returns how many it took, and what gives it back.

    The descriptor itself is left as it is: a mode set there would hold for all processes that share it.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        shared = socket.socket(fileno=os.dup(descriptor))
        return lambda data: shared.send(data, socket.MSG_DONTWAIT), shared.close
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        with suppress(OSError):  # no /proc, or a terminal of another user
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return lambda data: os.write(own, data), lambda: os.close(own)
    return lambda data: os.write(descriptor, data), lambda: None


def open_all() -> None:
    """Give a process whose standard streams are closed the null device in their place.

    The next file that it opens would take their numbers, and get what is printed.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def take_over() -> None:
    """Make whatever this process prints from now on go by an `Output`: its own lines, and those of the user's code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with suppress(AttributeError, OSError, ValueError):  # closed, or none at all
            stream.flush()
            setattr(sys, name, Output(stream))


def drain() -> None:
    """Give late readers of both a moment."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Output):
            stream.drain()
