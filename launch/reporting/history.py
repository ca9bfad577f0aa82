"""Reads everything of a run's folder that a report shows."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from phalanx.common.files import read_json, read_text
from phalanx.run_folder import lease_holders, liveness, names
from phalanx.run_folder.jsonl import Entry, read_events, read_lines
from phalanx.run_folder.lease_holders import Holder

_COPIED_S = 60.0  # a file that is this much younger than its last line says is a copy


@dataclass(frozen=True)
class History:
    """`lines` are those of metrics.jsonl, `config` is the text of resolved.yaml, `holders` the starts by incarnation.

    `seen` says when each start was last seen to live, in seconds since 1970, where the folder still tells; `live` is the
    one that lives now. Times of lines and events never go back, whatever the clocks of the machines did.
    """

    run: Path
    config: str
    lines: Sequence[Entry]
    events: Sequence[Entry]
    environment: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    holders: Mapping[int, Holder]
    seen: Mapping[int, float]
    live: Holder | None


def read(run: Path) -> History:
    """What is in the folder `run`; what is missing or damaged there is empty here."""
    holders = lease_holders.holders(run)
    environment, summary = read_json(run / names.ENVIRONMENT), read_json(run / names.SUMMARY)
    events = _forward(read_events(run))
    return History(
        run=run,
        config=_text(run / names.RESOLVED),
        lines=_forward(read_lines(run)),
        events=events,
        environment=environment if isinstance(environment, dict) else {},
        summary=summary if isinstance(summary, dict) else None,
        holders={holder.incarnation: holder for holder, _ in holders},
        seen={} if _is_copy(run, events) else {holder.incarnation: seen for holder, seen in holders},
        live=liveness.live(run),
    )


def _text(path: Path) -> str:
    """The text of a regular file; empty where it cannot be read."""
    try:
        return read_text(path)
    except (OSError, ValueError):
        return ""


def _forward(entries: Iterable[Entry]) -> list[Entry]:
    def later(before: Entry, entry: Entry) -> Entry:
        return entry if entry["time"] >= before["time"] else {**entry, "time": before["time"]}

    return list(accumulate(entries, later))


def _is_copy(run: Path, events: Sequence[Entry]) -> bool:
    """Whether the folder was copied, and with it the times of its files were lost."""
    with suppress(OSError):
        return bool(events) and (run / names.EVENTS).stat().st_mtime > events[-1]["time"] + _COPIED_S
    return False
