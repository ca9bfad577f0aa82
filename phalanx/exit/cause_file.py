"""Write the exit cause of a run to a file for the launcher: torchrun folds the codes of all ranks into one.

The launcher names a file that does not exist yet in PHALANX_CAUSE_FILE. The rank that decided the end writes it, last.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from ..common.files import read_json, write_atomic
from ..common.redaction import redact, secrets_of
from .codes import ExitCode

VARIABLE = "PHALANX_CAUSE_FILE"


def write(code: int, rank: int, message: str, host: str | None = None) -> None:
    """Write {"code", "rank", "host", "message"}, redacted. Write errors are ignored: the launcher then uses exit codes.

    `host` is the rank's, where that is not this process's.
    """
    path = os.environ.get(VARIABLE)
    if path is not None:
        with suppress(OSError):
            write_atomic(Path(path), _words(code, rank, message, host))


def write_if_absent(code: int, message: str) -> None:
    """As `write`, for a launcher or agent that saw ranks end: never overwrites a rank's file."""
    path = os.environ.get(VARIABLE)
    if path is not None:
        with suppress(OSError), open(path, "x", encoding="utf-8") as file:
            file.write(_words(code, -1, message, None))


def correct_unknown(code: int, message: str) -> None:
    """Overwrite the cause if a rank wrote code 1 (unknown), for what no rank can know, such as an OOM kill."""
    path = os.environ.get(VARIABLE)
    known = None if path is None else read_json(Path(path))
    if path is not None and isinstance(known, dict) and known.get("code") == ExitCode.BUG:
        with suppress(OSError):
            write_atomic(Path(path), _words(code, known.get("rank", -1), message, known.get("host")))


def report_to_torchrun(message: str, rank: int) -> None:
    """Write the message's first line to TORCHELASTIC_ERROR_FILE, which torchrun prints in its report."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return
    line = _safe(message).partition("\n")[0]
    extra = {"py_callstack": f"{line} (rank {rank}; see above)", "timestamp": str(int(time.time()))}
    with suppress(OSError):
        Path(path).write_text(json.dumps({"message": {"message": line, "extraInfo": extra}}), encoding="utf-8")


def _words(code: int, rank: int, message: str, host: str | None) -> str:
    words = {"code": int(code), "rank": rank, "host": host or socket.gethostname(), "message": _safe(message)}
    return json.dumps(words) + "\n"


def _safe(message: str) -> str:
    return redact(message.strip(), secrets_of(os.environ))
