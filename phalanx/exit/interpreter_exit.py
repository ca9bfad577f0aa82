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
from collections.abc import Callable, Set
from contextlib import suppress
from types import FrameType

from ..common import stdio

# Variables by which profilers are loaded, which write what they measured when libc's exit calls them.
_LOAD_PROFILERS = ("CUDA_INJECTION64_PATH", "HSA_TOOLS_LIB", "LD_AUDIT", "LD_PRELOAD", "NVTX_INJECTION64_PATH")
_MPI = "mpi4py.MPI"  # finalized by what CPython calls after its teardown
_OF_MODULES = {("<frozen runpy>", "_run_code"), ("<frozen runpy>", "_run_module_as_main")}  # what -m is made of


def run_without_teardown(main: Callable[[], object]) -> None:
    """Call `main` as the last thing that a process does: once it has returned or raised SystemExit, the process ends early.

    As ever, threads are joined, all that was registered with atexit is called, and files that nobody has closed hold all
    that was written. Then, in the place of the teardown, comes os._exit. Where somebody else may catch SystemExit, such as
    a profiler that started this program, the process ends as any other.
    """
    before = _open_for_writing() if _is_outermost(sys._getframe(1)) else None
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code or 0
        if before is not None and isinstance(code, int) and abs(code) < 1 << 31:  # a text is printed by the interpreter
            _end_after_handlers(code, before)
        raise
    if before is not None:
        _end_after_handlers(0, before)


def _is_outermost(frame: FrameType) -> bool:
    """Whether nobody called the code of `frame` but the interpreter, as a file or by -m, and it will end after it."""
    caller = frame.f_back
    while caller is not None:
        if (caller.f_code.co_filename, caller.f_code.co_name) not in _OF_MODULES:
            return False
        caller = caller.f_back
    return not sys.flags.inspect


def _end_after_handlers(code: int, before: Set[tuple[int, int, int]]) -> None:
    """Register what ends the process, which comes first of all handlers and so has to call the others."""
    if _MPI in sys.modules or any(os.environ.get(name) for name in _LOAD_PROFILERS):
        return

    def end() -> None:
        atexit.unregister(end)
        _keep_operators()
        atexit._run_exitfuncs()
        left = _open_for_writing()
        if left is None or left - before:
            return  # what is in their buffers is written by the teardown
        stdio.drain()
        try:
            for stream in filter(None, (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
                stream.flush()
        except (OSError, ValueError):  # the interpreter tries once more, and tells
            return
        libc = ctypes.CDLL(None)
        libc.fflush(ctypes.c_void_p.in_dll(libc, "stdout"))  # not all: one that a thread reads from is locked
        os._exit(code & 0xFF)

    atexit.register(end)


def _open_for_writing() -> set[tuple[int, int, int]] | None:
    """Number, device and inode of each descriptor that is open for writing, but for the standard streams.

    Of files alone, without those that were removed, such as shared memory. None where there is no /proc.
    """
    found = set()
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return None
    for descriptor in descriptors:
        with suppress(OSError):  # that of the listing itself
            about = os.fstat(descriptor)
            writes = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            if descriptor > 2 and writes and stat.S_ISREG(about.st_mode) and about.st_nlink:
                found.add((descriptor, about.st_dev, about.st_ino))
    return found


def _keep_operators() -> None:
    """Keep torch from removing its operators from its tables one by one, which in a forked rank copies 30 MB."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # nothing else lists them
        alive = finalizer.peek()
        with suppress(Exception):  # whatever the function of somebody's finalizer is
            if alive is not None and alive[1].__module__ == "torch.library":
                finalizer.atexit = False
