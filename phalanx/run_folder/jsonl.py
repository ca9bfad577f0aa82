"""Read metrics.jsonl and events.jsonl of a run, also where they are torn, damaged or missing."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..common.files import open_regular
from . import names

Entry = dict[str, Any]
_LONGEST = 2**22  # bytes of a line; longer ones are ignored
_LATEST_S, _STEPS = 2.0**33, 2**53  # beyond these a number is no time in seconds since 1970, and no count of steps


def read_lines(run: Path, newest_bytes: int | None = None) -> Iterator[Entry]:
    """The lines of metrics.jsonl, those of the last `newest_bytes` alone where that is given. None where there is none."""
    return _entries(run / names.METRICS, "split", newest_bytes)


def read_events(run: Path, newest_bytes: int | None = None) -> Iterator[Entry]:
    """As `read_lines`, of events.jsonl."""
    return _entries(run / names.EVENTS, "event", newest_bytes)


def newest_evaluations(lines: Sequence[Entry]) -> dict[str, Any]:
    """The metrics of the newest evaluation in each split: by name in that of `eval`, by split/name in others."""
    newest = {line["split"]: line for line in lines if line.get("split") != "train"}
    return {
        name if split == "eval" else f"{split}/{name}": value
        for split, line in newest.items()
        for name, value in line.items()
        if name not in ("step", "split", "time")
    }


class Evaluations:
    """Follows the evaluations of a running run on the set of `split`."""

    def __init__(self, run: Path, split: str) -> None:
        self._split = split
        self._path = run / names.METRICS
        self._read = 0
        self._file: int | None = None

    def new(self) -> list[Entry]:
        """Those since the last call; all if the file was replaced, as at a new start."""
        with suppress(OSError), os.fdopen(open_regular(self._path), "rb") as file:
            if (inode := os.fstat(file.fileno()).st_ino) != self._file:
                self._file, self._read = inode, 0
            file.seek(self._read)
            whole_lines = file.read().rpartition(b"\n")[0]
            self._read += len(whole_lines) + bool(whole_lines)
            found = [_entry(line + b"\n", "split") for line in whole_lines.split(b"\n")]
            return [entry for entry in found if entry is not None and entry["split"] == self._split]
        return []


def number(value: object) -> float | None:
    """A value from a file as float, if it is a finite number; else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with suppress(OverflowError):  # an integer can have any number of digits
        return float(value) if math.isfinite(value) else None
    return None


def whole(value: object) -> int | None:
    """A value from a file as int, if it is a valid count, such as of steps; else None."""
    return value if type(value) is int and 0 <= value < _STEPS else None


def _entries(path: Path, kind: str, newest_bytes: int | None) -> Iterator[Entry]:
    with suppress(OSError), os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = 0 if newest_bytes is None else max(0, size - newest_bytes)
        file.seek(start)
        if start:
            file.readline(size - start)  # the rest of a line that began before
        while file.tell() < size and (line := file.readline(_LONGEST)):
            if (entry := _entry(line, kind)) is not None:
                yield entry


def _entry(line: bytes, kind: str) -> Entry | None:
    """The entry of a line, if it is complete and valid; else None."""
    with suppress(ValueError, RecursionError):
        entry = json.loads(line) if line.endswith(b"\n") else None
        if isinstance(entry, dict) and _is_ours(entry, kind):
            return entry
    return None


def _is_ours(entry: Entry, kind: str) -> bool:
    time = entry.get("time")
    dated = type(time) is float and 0.0 < time < _LATEST_S
    return dated and whole(entry.get("step")) is not None and isinstance(entry.get(kind), str)
