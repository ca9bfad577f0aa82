"""Ignores a broken pipe on standard output, as after `| head`: the verb goes on, and its exit code is its own."""

import io
import sys

from phalanx.common.stdio import redirect_to_null


class _Forgiving(io.FileIO):
    def write(self, data, /):  # type: ignore[no-untyped-def] # of the type that the base class has
        try:
            return super().write(data)
        except BrokenPipeError:
            redirect_to_null(self.fileno())
            return len(memoryview(data))


def ignore_broken_pipe() -> None:
    """From now on discard what is printed to a closed pipe, instead of raising BrokenPipeError."""
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
