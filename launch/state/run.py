"""The state of a run (running, finished, died, …) from the files in its folder alone."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phalanx.common.files import read_json
from phalanx.common.meter import goodput
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import Entry, newest_evaluations, number, read_events, read_lines, whole
from phalanx.run_folder.liveness import LivenessProbe

from ..submission.backend import JobPhase
from .submitted import Submitted

_LINES_BYTES, _EVENTS_BYTES = 2**16, 2**20  # of the ends of the files, in which the newest lines and the last start are
_STILL_S = 60.0  # a run without a new line for longer stands still, if its lines came far more often before
_STILL_INTERVALS = 10
_RECENT = 10  # lines that a pace is told by


@dataclass(frozen=True)
class RunState:
    """`state` is running, still (no line for long), finished, stopped, preempted, failed, died or new; with what the
    cluster knows also queued, starting or submitted (nobody can say how far).

    Times are in seconds; `said_s` is how long ago the last line or event was. `why` is what the cluster says of a job
    that waits, or where to read of one that came to nothing. What is not known is None.
    """

    run: Path
    state: str
    step: int | None
    steps: int | None
    loss: float | None
    samples_per_s: float | None
    eta_s: float | None
    goodput: float | None
    event: str | None
    said_s: float | None
    host: str | None
    pid: int | None
    job: str | None
    why: str | None = None
    evaluation: Mapping[str, float] = field(default_factory=dict)
    """The metrics of the newest evaluation, beside its loss."""
    ended_by: str | None = None
    """What ended a finished run: steps, early_stop or time_limit. None before, and of older versions."""

    @property
    def ended(self) -> str:
        """The state, and what ended the run where that was not its last step."""
        early = self.ended_by not in (None, "steps")
        return f"{self.state} by {self.ended_by}" if early else self.state

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "run": str(self.run)}


def unreadable_state(folder: Path, why: str) -> RunState:
    """The state of a run or a sweep whose folder cannot be read, and why."""
    state = "unreadable" if os.path.lexists(folder) else "gone"
    nothing: dict[str, Any] = dict.fromkeys(
        ("step", "steps", "loss", "samples_per_s", "eta_s", "goodput", "event", "said_s")
    )
    return RunState(run=folder, state=state, host=None, pid=None, job=None, why=why, **nothing)


def run_state(run: Path, now: float, probe: LivenessProbe | None = None) -> RunState:
    """The state of the run in the folder `run` at `now`, seconds since 1970. Raises OSError where it may not be read."""
    probe = probe or LivenessProbe()
    written = list(read_lines(run, _LINES_BYTES))
    lines = [line for line in written if line["split"] == "train"]
    events = list(read_events(run, _EVENTS_BYTES))
    summary = _object(run / names.SUMMARY)
    holder = None if summary else probe.live(run)
    newest = [*lines[-1:], *events[-1:]]
    said_s = _said_s(run, newest, now, probe if holder is not None else None)
    step = max((int(entry["step"]) for entry in newest), default=None)
    begin: Entry = next((event for event in reversed(events) if event["event"] in ("start", "resume")), {})
    steps = whole((summary or begin).get("steps"))
    last: Entry = lines[-1] if lines else {}
    runs = holder is not None and step is not None and steps is not None
    return RunState(
        run=run,
        state=_state(summary is not None, holder is not None, events, lines, said_s),
        step=step,
        steps=steps,
        loss=number(last.get("loss")),
        samples_per_s=number(last.get("samples_per_s")),
        eta_s=_eta_s(lines, steps - step) if runs else None,  # type: ignore[operator]
        goodput=number(summary.get("goodput")) if summary else _goodput(run),
        event=events[-1]["event"] if events else None,
        said_s=said_s,
        host=None if holder is None else holder.host,
        pid=None if holder is None else holder.pid,
        job=None if holder is None else holder.job,
        evaluation=_metrics(newest_evaluations(written)),
        ended_by=_text((summary or {}).get("ended_by")),
    )


def _metrics(evaluated: Mapping[str, object]) -> dict[str, float]:
    found = {name: number(value) for name, value in evaluated.items()}
    return {name: value for name, value in found.items() if value is not None}


def _said_s(run: Path, newest: Sequence[Entry], now: float, probe: LivenessProbe | None) -> float | None:
    """Seconds since the newest line; for a live run by the file server's clock, which may differ from the run's."""
    if not newest:
        return None
    if probe is None:
        return float(now - max(entry["time"] for entry in newest))
    written = max(path.lstat().st_mtime for path in (run / names.METRICS, run / names.EVENTS) if path.exists())
    return max(0.0, now - probe.ahead_s(run) - written)


def with_job(found: RunState, submitted: Submitted | None) -> RunState:
    """The same run, with what the cluster knows of its job."""
    if submitted is None or found.state in ("running", "still", "finished"):
        return found
    job = submitted.queued
    if job is not None and (job.phase is not JobPhase.ENDING or found.state == "new"):
        state = "queued" if job.phase is JobPhase.WAITING else "starting"
        return replace(found, state=state, job=job.job, why=job.reason)
    if job is None and found.state in ("preempted", "died", "new") and submitted.cancelled:
        return replace(found, state="stopped", why="its job was cancelled")
    if found.state != "new":
        return found
    if not submitted.known:
        return replace(found, state="submitted")
    return replace(found, state="failed", why=f"its job has ended, see {submitted.log}")


def _state(finished: bool, held: bool, events: Sequence[Entry], lines: Sequence[Entry], said_s: float | None) -> str:
    if finished:
        return "finished"
    if held:
        usual_s = lines[-1]["time"] - lines[-2]["time"] if len(lines) > 1 else 0.0
        return "still" if said_s is not None and said_s > max(_STILL_S, _STILL_INTERVALS * usual_s) else "running"
    last = events[-1]["event"] if events else "new"
    return {"preempt": "preempted", "stop": "stopped", "error": "failed", "new": "new"}.get(last, "died")


def _eta_s(lines: Sequence[Entry], steps_left: int) -> float | None:
    """Seconds left at the pace of the last lines, which includes evaluations and checkpoints."""
    recent = lines[-_RECENT:]
    steps = recent[-1]["step"] - recent[0]["step"] if recent else 0
    return float((recent[-1]["time"] - recent[0]["time"]) / steps * steps_left) if steps > 0 else None


def _goodput(run: Path) -> float | None:
    """Goodput as of the newest checkpoint, which holds the seconds by use."""
    newest = names.newest_manifest(run)
    progress = _object(newest.with_name(names.PROGRESS)) if newest is not None else None
    manifest = _object(newest) if newest is not None else None
    if progress is None or manifest is None:
        return None
    with suppress(KeyError, TypeError, AttributeError, ValueError, ArithmeticError):  # written by others
        return number(goodput(progress["seconds"], manifest["time"] - progress["began"])["goodput"])
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _object(path: Path) -> Entry | None:
    found = read_json(path)
    return found if isinstance(found, dict) else None
