"""How a rank leaves over what is the user's to mend: one rank speaks, all end with code 2. Imports no torch."""

import logging
import os
import sys
import threading

from train.outcome import ConfigError, ExitCode
from train.redact import redact, secrets_of

_LAUNCHER_S = 5.0  # how long the silent ranks wait for rank 0 to speak; the launcher ends them as soon as it has left


def refuse(error: ConfigError, leads: bool) -> None:
    """End with code 2. Every rank raised the same error, so rank 0 speaks and the others hold still meanwhile."""
    if leads:
        say(f"error: {error}")
    else:
        threading.Event().wait(_LAUNCHER_S)
    end(ExitCode.CONFIG)


def say(text: str) -> None:
    """To standard error, in one piece, without secrets."""
    sys.stderr.write(redact(text, secrets_of(os.environ)) + "\n")
    sys.stderr.flush()


def end(code: int) -> None:
    """Leave at once with `code`, past threads and collectives that would wait for ranks that are gone."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
