"""Print error messages and exit: one rank prints what the user can mend, all exit with code 2. Imports no torch."""

import os
import sys
import threading
from contextlib import suppress
from multiprocessing import active_children
from typing import NoReturn

from ..common import stdio
from ..common.columns import terminal_width, wrap
from ..common.escaping import printable
from ..common.redaction import redact, secrets_of
from . import cause_file
from .codes import ConfigError, ExitCode

_LAUNCHER_S = 5.0  # how long other ranks wait before they exit; the launcher ends them when rank 0 has exited


def refuse(error: ConfigError, is_rank_zero: bool) -> NoReturn:
    """Exit with code 2. Every rank raised the same error: rank 0 prints it, the others wait to be ended."""
    exit_as_one(ExitCode.CONFIG, f"error: {error}", str(error), is_rank_zero, agreed=error.agreed)


def exit_as_one(code: ExitCode, text: str, cause: str, is_rank_zero: bool, *, agreed: bool) -> NoReturn:
    """Exit with `code` before the ranks have joined: rank 0 prints `text` for all, the others wait to be ended.

    `agreed`: every rank certainly does the same.
    """
    if is_rank_zero:
        say(text)
        cause_file.write(code, 0, cause)
    else:
        threading.Event().wait(_LAUNCHER_S)
        if not agreed:
            say(text)  # the launcher did not end this rank, so rank 0 did not fail: print it here
    end(code)


def say(text: str) -> None:
    """Print to standard error in one write, redacted and wrapped. Write errors are ignored."""
    with suppress(OSError, ValueError):
        shown = printable(redact(text, secrets_of(os.environ))).rstrip("\n")
        sys.stderr.write(wrap(shown, terminal_width(sys.stderr)) + "\n")
        sys.stderr.flush()


def end(code: int) -> NoReturn:
    """os._exit with `code`, without waiting for threads or collectives, after a flush with a timeout."""
    stdio.drain()
    for child in active_children():  # such as data workers, which would outlive this rank by seconds
        child.kill()
    os._exit(code)
