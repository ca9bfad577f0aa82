"""A reader of what is printed may be gone, as `head` is: that ends no work and is no failure."""

import io
import sys

from phalanx.common.stdio import let_go


class _Forgiving(io.FileIO):
    def write(self, data, /):  # type: ignore[no-untyped-def] # of the type that the base class has
        try:
            return super().write(data)
        except BrokenPipeError:
            let_go(self.fileno())
            return len(memoryview(data))


def forgive() -> None:
    """From now on what is printed when nobody reads any more is lost, and the verb does its work."""
    if sys.stdout is None:  # it was closed from the beginning
        return
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:  # it is no file, as where another program calls a verb
        return
    raw = io.BufferedWriter(_Forgiving(descriptor, "wb", closefd=False))
    at_once, encoding = sys.stdout.isatty(), sys.stdout.encoding
    sys.stdout = io.TextIOWrapper(raw, encoding, sys.stdout.errors, line_buffering=at_once)
