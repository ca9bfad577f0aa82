"""End a process without freeing what it imported, which with torch takes up to a second of the processor.

In a rank that was forked it takes the longest, for whatever is freed is copied first.
"""

import atexit
import ctypes
import fcntl
import os
import stat
import sys
import weakref
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

from ..common import stdio

_NEED_C_HANDLERS = ("CUDA_INJECTION64_PATH", "LD_PRELOAD")
"""Variables by which profilers are loaded, which write what they have measured when libc's exit calls them."""


@contextmanager
def skip_teardown() -> Iterator[None]:
    """The entry of a process: once all within has returned or raised SystemExit, the interpreter ends early.

    As ever, whatever catches SystemExit on its way out, such as a profiler, goes on, threads are joined, all that was
    registered with atexit is called, and files are closed that nobody has closed. Then, in the place of the teardown, comes
    os._exit.
    """
    before = _open_for_writing()
    try:
        yield
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):  # a text is printed by the interpreter
            _end_after_handlers(leaving.code or 0, before)
        raise
    else:
        _end_after_handlers(0, before)


def _end_after_handlers(code: int, before: Set[tuple[int, int, int]]) -> None:
    """Register what ends the process, which comes first of all handlers and so has to call the others."""
    if any(os.environ.get(name) for name in _NEED_C_HANDLERS):
        return

    def end() -> None:
        atexit.unregister(end)
        _keep_operators()
        atexit._run_exitfuncs()
        if _open_for_writing() - before:
            return  # what is in their buffers is written by the teardown
        stdio.drain()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # none, closed, or nobody reads it
                stream.flush()
        ctypes.CDLL(None).fflush(None)  # the buffers of what is written in C
        os._exit(code & 0xFF)

    atexit.register(end)


def _open_for_writing() -> set[tuple[int, int, int]]:
    """Number, device and inode of each descriptor that is open for writing, but for the standard streams.

    Of files alone, without those that were removed, such as shared memory.
    """
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # that of the listing itself
            about = os.fstat(descriptor)
            writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if descriptor > 2 and writes and stat.S_ISREG(about.st_mode) and about.st_nlink:
                found.add((descriptor, about.st_dev, about.st_ino))
    return found


def _keep_operators() -> None:
    """Keep torch from removing its operators from its tables one by one, which in a forked rank copies 30 MB."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # nothing else lists them
        if (alive := finalizer.peek()) is not None and alive[1].__module__ == "torch.library":
            finalizer.atexit = False
