"""The run's own record, metrics.jsonl and events.jsonl: one JSON object a line, never torn, never repeated."""

import json
import math
import os
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import ClassVar, final

from train.files import opened, sync_folder
from train.sinks.sink import Sink


@final
class JsonLines(Sink):
    """Appends to `folder`/metrics.jsonl and `folder`/events.jsonl.

    Opening removes what an interrupted start left behind: metrics past `step`, the step this start continues from
    (0 begins anew), and any line that was not written to its end.
    """

    essential: ClassVar[bool] = True

    def __init__(self, folder: Path, step: int, check: Callable[[], None]) -> None:
        """`check` raises when this process may not write to `folder` any more."""
        self._check = check
        metrics, events = folder / "metrics.jsonl", folder / "events.jsonl"
        _keep(metrics, lambda entry: step > 0 and _step(entry) <= step, check)
        _keep(events, lambda entry: True, check)
        self._metrics, self._events = _append_to(metrics), _append_to(events)
        sync_folder(folder)

    def write(self, line: Mapping[str, object]) -> None:
        _append(self._metrics, line)

    def event(self, event: Mapping[str, object]) -> None:
        _append(self._events, event)

    def sync(self) -> None:
        """Force both files to the disk. To be called before a checkpoint is committed that counts on their lines.

        Raises what `check` raises, or OSError when they are not what readers see any more.
        """
        self._check()
        for file in (self._metrics, self._events):
            os.fsync(file.fileno())
            if os.fstat(file.fileno()).st_ino != os.stat(file.name).st_ino:
                raise OSError(f"{file.name!s} was replaced by another process while this one wrote to it")

    def close(self, summary: Mapping[str, object] | None) -> None:
        with self._metrics, self._events:
            os.fsync(self._metrics.fileno())
            os.fsync(self._events.fileno())


def undone(folder: Path, step: int) -> dict[str, float]:
    """What the start before did past `step`, from which this one goes on: how many steps, as far as lines tell, and
    until when, in seconds since 1970. Empty where it did none. To be asked before the lines of them are removed.
    """
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    last = next((entry for line in reversed(lines) if (entry := _entry(line)) is not None), {})
    reached, until = last.get("step"), last.get("time")
    if not isinstance(reached, int) or not isinstance(until, (int, float)) or reached <= step:
        return {}
    return {"undone_steps": reached - step, "undone_until": until}


def _append_to(path: Path) -> FileIO:
    return open(path, "ab", buffering=0, opener=lambda name, flags: opened(Path(name), flags))


def _append(file: FileIO, line: Mapping[str, object]) -> None:
    entry = json.dumps(_finite(line), separators=(",", ":"), allow_nan=False).encode() + b"\n"
    written = file.write(entry)
    if written != len(entry):
        raise OSError(f"{file.name!s}: only {written} of {len(entry)} bytes fitted. Is the disk full?")


def _finite(value: object) -> object:
    """`value` with every number that JSON cannot hold (nan, inf) replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _keep(path: Path, wanted: Callable[[dict[str, object]], bool], check: Callable[[], None]) -> None:
    """Replace the file by its whole, `wanted` lines. A reader sees all of the old or all of the new one.

    It is replaced also where nothing is left out: a process that was taken for dead goes on writing into the old one.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (entry := _entry(line)) is not None and wanted(entry)]
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)  # a link there, or a second name of another file, is not written through
    with os.fdopen(opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    check()
    os.replace(beside, path)
    sync_folder(path.parent)


def _entry(line: bytes) -> dict[str, object] | None:
    """The object a line holds, or None if the line is torn: no end, or (after a power cut) no JSON."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _step(entry: Mapping[str, object]) -> float:
    step = entry.get("step")
    return step if isinstance(step, int) else math.inf
