"""All that a run left in its folder, read whole: what its story is told from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.lines import Entry, read_events, read_lines
from train import lease
from train.files import read_json
from train.lease import Holder


@dataclass(frozen=True)
class History:
    """`lines` are those of metrics.jsonl, `config` is the text of resolved.yaml, `holders` the starts by incarnation.

    `touched` says when each start was last seen to live, in seconds since 1970.
    """

    run: Path
    config: str
    lines: Sequence[Entry]
    events: Sequence[Entry]
    environment: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    holders: Mapping[int, Holder]
    touched: Mapping[int, float]
    lives: bool


def read(run: Path) -> History:
    """What is in the folder `run`; what is missing or damaged there is empty here."""
    holders = lease.holders(run)
    environment, summary = read_json(run / "environment.json"), read_json(run / "summary.json")
    return History(
        run=run,
        config=(run / "resolved.yaml").read_text(encoding="utf-8", errors="replace"),
        lines=list(read_lines(run)),
        events=sorted(read_events(run), key=lambda event: float(event["time"])),
        environment=environment if isinstance(environment, dict) else {},
        summary=summary if isinstance(summary, dict) else None,
        holders={holder.incarnation: holder for holder, _ in holders},
        touched={holder.incarnation: touched for holder, touched in holders},
        lives=lease.live(run) is not None,
    )
