"""Pause garbage collection during large imports: it takes half a second while torch is imported."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_collected() -> Iterator[None]:
    """Within, nothing is collected; what there is at its end stays, and no later collection looks at it.

    Nor does one in a process that is forked from this one, which would copy the memory that both share.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
