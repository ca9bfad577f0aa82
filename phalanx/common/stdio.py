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

_PENDING_BYTES = 1 << 18  # buffered while the reader is slow; further lines are dropped
_FLUSH_S = 0.5  # timeout of the last flush before exit


@final
class Output(io.TextIOBase):
    """Non-blocking text stream over the file descriptor of `stream`. Never raises a write error.

    While a terminal is stopped (Ctrl-S) or a pipe is full, text is buffered up to `_PENDING_BYTES`. When the reader has
    closed it, the descriptor is redirected to /dev/null.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._pending = b""
        self._dropped = 0
        self._send, self._close_own = _sender(self._descriptor)
        self._lock = threading.RLock()  # a signal's handler may interrupt a call with one of its own

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in the base class
        return self._stream.encoding or "ascii"

    @property
    def buffer(self) -> BinaryIO:
        """The stream's own binary buffer, which blocks."""
        return self._stream.buffer

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        data = text.encode(self.encoding, "replace")
        with self._lock:
            if len(self._pending) + len(data) > _PENDING_BYTES:
                self._send_pending()
            if len(self._pending) + len(data) > _PENDING_BYTES:
                self._dropped += text.count("\n")
            else:
                self._pending += self._gap_notice() + data
            if "\n" in text or "\r" in text:
                self._send_pending()
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._send_pending()

    def close(self) -> None:
        """Close the duplicate descriptor; the stream itself stays open."""
        if not self.closed:
            super().close()
            self._close_own()

    def drain(self) -> None:
        """Flush, waiting at most `_FLUSH_S` for a slow reader. Call it before the process exits."""
        end_s = time.monotonic() + _FLUSH_S
        self.flush()
        while self._pending and (left_s := end_s - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left_s)
            self.flush()

    def _gap_notice(self) -> bytes:
        if not self._dropped:
            return b""
        lines, self._dropped = self._dropped, 0
        return f"[{lines} lines are left out here: nobody read them in time]\n".encode("ascii")

    def _send_pending(self) -> None:
        """Write what the descriptor takes without blocking."""
        try:
            while self._pending:
                self._pending = self._pending[self._send(self._pending) :]
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError):
            self._pending = b""
            with suppress(OSError):
                redirect_to_null(self._descriptor)
            self._send = len


def redirect_to_null(descriptor: int) -> None:
    """Redirect `descriptor` to /dev/null, for the flush at interpreter exit, too."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _sender(descriptor: int) -> tuple[Callable[[bytes], int], Callable[[], None]]:
    """A non-blocking write function for `descriptor`, which returns the bytes written, and the function that closes it.

    O_NONBLOCK is not set on `descriptor` itself: the flag is shared with every process that inherited it.
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


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed.

    Otherwise the next file that is opened gets its number, and what is printed goes into that file.
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


def wrap_streams() -> None:
    """Replace sys.stdout and sys.stderr by non-blocking `Output` streams, for our lines and the user's."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with suppress(AttributeError, OSError, ValueError):  # closed, or none at all
            stream.flush()
            setattr(sys, name, Output(stream))


def drain() -> None:
    """Flush both streams, see `Output.drain`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Output):
            stream.drain()
