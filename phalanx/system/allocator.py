"""Tune glibc's malloc to keep the memory that a step frees for the next one.

By default it may trim the heap after a step and fault it in again in the next: thousands of page faults a step, up to
45 % of its time. It depends on the addresses of a process's first allocations, so equal processes are fast or slow for
their whole life.
"""

import ctypes
import os
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in <malloc.h>
_LARGE = 32 * 2**20  # bytes; glibc's own limit of what it learns to keep. Larger blocks go back to the kernel at once
_NEVER = 2**31 - 1
_HUGE = "glibc.malloc.hugetlb"
_HUGE_SINCE = (2, 35)


def keep_freed_memory(environ: Mapping[str, str]) -> bool:
    """Set the trim and mmap thresholds of this process, before its first large allocation. Returns whether they were set.

    Not set if the user tuned the allocator (MALLOC_*, GLIBC_TUNABLES) or preloads another, or if the C library is not
    glibc. Both thresholds are needed: setting one disables glibc's dynamic threshold and makes every process slow.
    """
    if glibc() is None or tuned(environ) or not _glibc_allocates():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_THRESHOLD, _LARGE))


def huge_pages(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that give a new process a heap of huge pages; empty if the user tuned the allocator."""
    version = glibc()
    if version is None or version < _HUGE_SINCE or "GLIBC_TUNABLES" in environ or tuned(environ):
        return {}
    return {"GLIBC_TUNABLES": f"{_HUGE}=1"}


def glibc() -> tuple[int, ...] | None:
    """The version of the C library, such as (2, 36); None where it is not glibc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # musl and macOS lack CS_GNU_LIBC_VERSION
        return None
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else None


def tuned(environ: Mapping[str, str]) -> bool:
    """Whether the user tuned malloc by variables, or preloads another allocator."""
    tunables = [word.partition("=")[0] for word in environ.get("GLIBC_TUNABLES", "").split(":")]
    return (
        any(name.startswith("MALLOC_") for name in environ)
        or any(name.startswith("glibc.malloc.") and name != _HUGE for name in tunables)
        or any(name in environ.get("LD_PRELOAD", "") for name in ("malloc", "hoard", "snmalloc"))
    )


class _Symbol(ctypes.Structure):
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def _glibc_allocates() -> bool:
    """Whether the process's malloc lies in the same library as its mallopt and gnu_get_libc_version do."""
    program = ctypes.CDLL(None)
    found = [_library(program, name) for name in ("malloc", "mallopt", "gnu_get_libc_version")]
    return len(set(found)) == 1


def _library(program: ctypes.CDLL, name: str) -> bytes | None:
    symbol = _Symbol()
    address = ctypes.cast(getattr(program, name), ctypes.c_void_p)
    return symbol.file if program.dladdr(address, ctypes.byref(symbol)) else None
