"""Set up logging of a rank: a log file for each rank, and warnings of rank 0 on the console."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ..common.columns import terminal_width, wrap
from ..common.escaping import printable
from ..common.files import open_regular
from ..common.redaction import RedactingFilter, secrets_of
from . import names


class _Printable(logging.Formatter):
    """What is told of a run's folder may be a stranger's words, and a terminal obeys what it is sent."""

    def format(self, record: logging.LogRecord) -> str:
        return wrap(printable(super().format(record)), terminal_width(sys.stderr))


class _File(logging.StreamHandler[TextIO]):
    def __init__(self, path: Path) -> None:
        super().__init__(os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a", encoding="utf-8"))
        self.path = path

    def close(self) -> None:
        """Called by logging at exit."""
        self.stream.close()
        super().close()


def to_console(is_rank_zero: bool, environ: Mapping[str, str]) -> None:
    """Before there is a run folder: warnings of rank 0 go to standard error, all else nowhere."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if is_rank_zero else logging.NullHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
    handler.addFilter(RedactingFilter(secrets_of(environ)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a log that cannot be written, as on a full disk, is no reason for a traceback


def to_file(folder: Path, rank: int, environ: Mapping[str, str]) -> None:
    """From now on also into `folder`/rank_N.log, which is no link, or another file would be written to."""
    folder.mkdir(exist_ok=True)
    path = folder / names.rank_log(rank)
    handler = _File(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RedactingFilter(secrets_of(environ)))
    logging.getLogger().addHandler(handler)


def file() -> str | None:
    """Where this rank's log is, None before there is a run folder."""
    files = [handler.path for handler in logging.getLogger().handlers if isinstance(handler, _File)]
    return str(files[-1]) if files else None
