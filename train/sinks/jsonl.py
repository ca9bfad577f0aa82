"""Append to metrics.jsonl and events.jsonl: one JSON object a line, never torn, never repeated."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import ClassVar, final

from phalanx.common.files import finite, open_regular, read_bytes, sync_folder
from phalanx.exit.disk_errors import writing
from phalanx.run_folder import names

from .sink import Sink

logger = logging.getLogger(__name__)


@final
class JsonLines(Sink):
    """Appends to `folder`/metrics.jsonl and `folder`/events.jsonl.

    Opening removes what an interrupted start left behind: metrics past `step`, the step this start continues from
    (0 begins anew), those of the test at the end, which comes again, and any line that was not written to its end.
    """

    essential: ClassVar[bool] = True

    def __init__(self, folder: Path, step: int, check: Callable[[], None]) -> None:
        """`check` raises when this process may not write to `folder` any more."""
        self._check = check
        self._folder = folder
        metrics, events = folder / names.METRICS, folder / names.EVENTS
        _rewrite(metrics, lambda entry: step > 0 and _step(entry) <= step and entry.get("split") != "test", check)
        _rewrite(events, lambda entry: True, check)
        self._metrics, self._events = _Lines(metrics), _Lines(events)
        sync_folder(folder)

    def write(self, line: Mapping[str, object]) -> None:
        self._metrics.append(line)

    def event(self, event: Mapping[str, object]) -> None:
        self._events.append(event)

    def sync(self) -> None:
        """fsync both files. Call it before a checkpoint that relies on their lines is committed.

        Raises what `check` raises, NoRoom if a line cannot be written, or OSError if a file was replaced.
        """
        self._check()
        with writing(self._folder):
            for lines in (self._metrics, self._events):
                lines.sync()
        for lines in (self._metrics, self._events):
            if os.fstat(lines.file.fileno()).st_ino != os.stat(lines.file.name).st_ino:
                raise OSError(f"{lines.file.name!s} was replaced by another process while this one wrote to it")

    def close(self, summary: Mapping[str, object] | None) -> None:
        with self._metrics.file, self._events.file, writing(self._folder):
            self._metrics.sync()
            self._events.sync()


class _Lines:
    """A file that lines are appended to. Lines that could not be written are retried with the next, or at `sync`."""

    def __init__(self, path: Path) -> None:
        self.file = FileIO(path, "ab", opener=lambda name, flags: open_regular(Path(name), flags))
        self._pending = b""

    def append(self, line: Mapping[str, object]) -> None:
        self._pending += json.dumps(finite(line), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with suppress(OSError):
            self._flush()

    def sync(self) -> None:
        """Raises OSError."""
        self._flush()
        os.fsync(self.file.fileno())

    def _flush(self) -> None:
        while self._pending:
            self._pending = self._pending[self.file.write(self._pending) or 0 :]


def undone_steps(folder: Path, step: int) -> dict[str, float]:
    """Steps that the start before did past `step`, where this one continues: their number by metrics.jsonl, and until when
    (seconds since 1970). Empty if none. Call it before their lines are removed.
    """
    path = folder / names.METRICS
    lines = read_bytes(path).splitlines(keepends=True) if path.exists() else []
    last = next((entry for line in reversed(lines) if (entry := _entry(line)) is not None), {})
    reached, until = last.get("step"), last.get("time")
    if not isinstance(reached, int) or not isinstance(until, (int, float)) or reached <= step:
        return {}
    return {"undone_steps": reached - step, "undone_until": until}


def _rewrite(path: Path, wanted: Callable[[dict[str, object]], bool], check: Callable[[], None]) -> None:
    """Rewrite the file with its complete, `wanted` lines by rename: a reader sees the old file or the new one.

    Also if no line is dropped: a process that was taken for dead may still write to the old file.
    """
    if not path.exists():
        return
    lines = read_bytes(path).splitlines(keepends=True)
    entries = [_entry(line) for line in lines]
    kept = [line for line, entry in zip(lines, entries, strict=True) if entry is not None and wanted(entry)]
    _tell_damaged(path, [i for i, entry in enumerate(entries, 1) if entry is None and lines[i - 1].endswith(b"\n")])
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)  # a link there, or a second name of another file, is not written through
    with os.fdopen(open_regular(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    check()
    os.replace(beside, path)
    sync_folder(path.parent)


def _tell_damaged(path: Path, numbers: Sequence[int]) -> None:
    """Log damaged lines and keep a copy of the file. An incomplete last line is normal after a kill and not counted."""
    if numbers:
        more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
        which = f"line{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:3]))}{more}"
        kept = path.with_name(f"{path.name}{names.DAMAGED}")
        kept.unlink(missing_ok=True)
        with os.fdopen(open_regular(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(path.read_bytes())
        logger.warning("%s was damaged: %s held no JSON object and went; %s is as it was", path, which, kept.name)


def _entry(line: bytes) -> dict[str, object] | None:
    """The object a line holds, or None if the line is torn: no end, or (after a power cut) no JSON."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _step(entry: Mapping[str, object]) -> float:
    step = entry.get("step")
    return step if isinstance(step, int) else math.inf
