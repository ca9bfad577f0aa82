"""Print error messages and exit: one rank prints what the user can mend, all exit with code 2. Imports no torch."""

import os
import sys
import threading
from contextlib import suppress
from multiprocessing import active_children
from typing import NoReturn

from ..common import stdio
from ..common.columns import broken, columns_of
from ..common.escaping import printable
from ..common.redaction import redact, secrets_of
from . import cause_file
from .codes import ConfigError, ExitCode

_LAUNCHER_S = 5.0  # how long the silent ranks wait for rank 0 to speak; the launcher ends them as soon as it has left


def refuse(error: ConfigError, is_rank_zero: bool) -> NoReturn:
    """End with code 2. Every rank raised the same error, so rank 0 speaks and the others hold still meanwhile."""
    if is_rank_zero:
        say(f"error: {error}")
        cause_file.leave(ExitCode.CONFIG, 0, str(error))
    else:
        threading.Event().wait(_LAUNCHER_S)
        if not error.agreed:
            say(f"error: {error}")  # nobody has ended this rank meanwhile, so the others did not meet the same trouble
    end(ExitCode.CONFIG)


def say(text: str) -> None:
    """To standard error, in one piece, without secrets. That nobody reads it any more is no reason to fail."""
    with suppress(OSError, ValueError):
        shown = printable(redact(text, secrets_of(os.environ))).rstrip("\n")
        sys.stderr.write(broken(shown, columns_of(sys.stderr)) + "\n")
        sys.stderr.flush()


def end(code: int) -> NoReturn:
    """Leave at once with `code`, past threads and collectives that would wait for ranks that are gone.

    Of what was printed goes what a reader takes soon.
    """
    stdio.drain()
    for child in active_children():  # such as workers of a DataLoader, which would outlive this rank by seconds
        child.kill()
    os._exit(code)
