"""The files of lines that a run writes, metrics.jsonl and events.jsonl, as they are found: whole, torn or missing."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def entries(path: Path, newest_bytes: int | None = None) -> Iterator[Entry]:
    """The whole lines of a file that are a run's, those of the last `newest_bytes` alone where that is given.

    None where there is no file.
    """
    with suppress(OSError), path.open("rb") as file:
        start = 0 if newest_bytes is None else max(0, os.fstat(file.fileno()).st_size - newest_bytes)
        file.seek(start)
        if start:
            file.readline()  # the rest of a line that began before
        for line in file:
            with suppress(ValueError):
                entry = json.loads(line) if line.endswith(b"\n") else None
                if isinstance(entry, dict) and entry.keys() >= {"time", "step"}:
                    yield entry
