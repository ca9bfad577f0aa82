"""Pause garbage collection during large imports: it takes half a second while torch is imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable garbage collection inside, and freeze all objects at the end: no later collection scans them.

    In a forked process a collection would write to shared pages, and so copy them.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
