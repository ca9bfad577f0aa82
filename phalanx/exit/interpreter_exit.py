"""End a process without freeing what it imported, which with torch takes up to a second of the processor.

In a rank that was forked it takes the longest, for whatever is freed is copied first.
"""

import atexit
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..common import stdio

_NEED_C_HANDLERS = ("CUDA_INJECTION64_PATH", "LD_PRELOAD")
"""Variables by which profilers are loaded, which write what they have measured when libc's exit calls them."""


@contextmanager
def skip_teardown() -> Iterator[None]:
    """The entry of a process: once all within has returned or raised SystemExit, the interpreter ends early.

    As ever, whatever catches SystemExit on its way out, such as a profiler, goes on, threads are joined, and all that was
    registered with atexit is called. Then, in the place of the teardown, comes os._exit.
    """
    try:
        yield
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):  # a text is printed by the interpreter
            _end_after_handlers(leaving.code or 0)
        raise
    else:
        _end_after_handlers(0)


def _end_after_handlers(code: int) -> None:
    """Register what ends the process, which comes first of all handlers and so has to call the others."""
    if any(os.environ.get(name) for name in _NEED_C_HANDLERS):
        return

    def end() -> None:
        atexit.unregister(end)
        _keep_operators()
        atexit._run_exitfuncs()
        stdio.drain()
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # none, closed, or nobody reads it
                stream.flush()
        os._exit(code & 0xFF)

    atexit.register(end)


def _keep_operators() -> None:
    """Keep torch from removing its operators from its tables one by one, which in a forked rank copies 30 MB."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # nothing else lists them
        if (alive := finalizer.peek()) is not None and alive[1].__module__ == "torch.library":
            finalizer.atexit = False
