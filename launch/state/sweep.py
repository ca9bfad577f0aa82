"""The state of a sweep for `phalanx status`, read from its folder alone; a trial stands where a run has a step."""

from pathlib import Path

from phalanx.common.files import read_json
from phalanx.run_folder.jsonl import number, whole
from phalanx.run_folder.liveness import LivenessProbe

from ..common.find_run import is_sweep
from ..common.sweep_folder import SWEEP
from .holders import holders
from .run import RunState, run_state, unreadable_state

ENDED = ("complete", "pruned", "failed")  # states of a trial that stay


def state_of(folder: Path, now: float, probe: LivenessProbe) -> RunState:
    """The state of the run or the sweep in `folder` at `now`, seconds since 1970."""
    try:
        return _of_sweep(folder, now, probe) if is_sweep(folder) else run_state(folder, now, probe)
    except OSError as error:
        return unreadable_state(folder, error.strerror or str(error))


def _of_sweep(folder: Path, now: float, probe: LivenessProbe) -> RunState:
    found = read_json(folder / SWEEP)
    found = found if isinstance(found, dict) else {}
    rows, best = found.get("rows"), found.get("best")
    rows = rows if isinstance(rows, list) else []
    best = best if isinstance(best, dict) else {}
    value = number(best.get("value"))
    at_work = holders(folder, probe)
    state, holder = str(found.get("state", "new")), next(iter(at_work), None)
    if state == "running" and holder is None:
        state = "died"
    why = [] if value is None else [f"best {found.get('metric')} {value:.4g}, trial {best.get('trial')}"]
    why += [f"{len(at_work)} at work"] if len(at_work) > 1 else []
    return RunState(
        run=folder,
        state="running" if holder is not None else state,
        step=sum(isinstance(row, dict) and row.get("state") in ENDED for row in rows),
        steps=whole(found.get("trials")),
        loss=None,
        samples_per_s=None,
        eta_s=None,
        goodput=None,
        event="trial",
        said_s=now - (folder / SWEEP).stat().st_mtime,
        host=None if holder is None else holder.host,
        pid=None if holder is None else holder.pid,
        job=None if holder is None else holder.job,
        why=", ".join(why) or None,
    )
