"""The files of lines that a run writes, metrics.jsonl and events.jsonl, as they are found: whole, torn or missing."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def read_lines(run: Path, newest_bytes: int | None = None) -> Iterator[Entry]:
    """The lines of metrics.jsonl, those of the last `newest_bytes` alone where that is given. None where there is none."""
    return _entries(run / "metrics.jsonl", "split", newest_bytes)


def read_events(run: Path, newest_bytes: int | None = None) -> Iterator[Entry]:
    """The same of events.jsonl."""
    return _entries(run / "events.jsonl", "event", newest_bytes)


def _entries(path: Path, kind: str, newest_bytes: int | None) -> Iterator[Entry]:
    with suppress(OSError), path.open("rb") as file:
        start = 0 if newest_bytes is None else max(0, os.fstat(file.fileno()).st_size - newest_bytes)
        file.seek(start)
        if start:
            file.readline()  # the rest of a line that began before
        for line in file:
            with suppress(ValueError):
                entry = json.loads(line) if line.endswith(b"\n") else None
                if isinstance(entry, dict) and _is_ours(entry, kind):
                    yield entry


def _is_ours(entry: Entry, kind: str) -> bool:
    return type(entry.get("time")) is float and type(entry.get("step")) is int and isinstance(entry.get(kind), str)
