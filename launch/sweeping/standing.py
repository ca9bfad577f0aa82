"""How a sweep fares, from its folder alone, as `phalanx status` tells it of runs: a step is a trial here."""

from pathlib import Path

from launch.lines import number, whole
from launch.standing import Standing
from launch.sweeping.results import SWEEP
from train import lease
from train.files import read_json

_ENDS = ("complete", "pruned", "failed")


def sweeps(root: Path) -> list[Path]:
    """The folders of sweeps below `root`."""
    return sorted(path.parent for path in root.glob(f"*/{SWEEP}"))


def sweep_named(word: str, root: Path) -> Path | None:
    """The folder of the sweep that `word` names by its path, or by its name below `root`."""
    return next((folder for folder in (Path(word), root / word) if (folder / SWEEP).is_file()), None)


def standing_of_sweep(folder: Path, now: float) -> Standing:
    """How the sweep in `folder` fares at `now`, seconds since 1970."""
    found = read_json(folder / SWEEP)
    found = found if isinstance(found, dict) else {}
    rows = (
        [row for row in found.get("rows", ()) if isinstance(row, dict)] if isinstance(found.get("rows"), list) else []
    )
    best = found.get("best")
    value = number(best.get("value")) if isinstance(best, dict) else None
    state, holder = str(found.get("state", "new")), lease.live(folder)
    if state == "running" and holder is None:
        state = "died"
    return Standing(
        run=folder,
        state="running" if holder is not None else state,
        step=sum(row.get("state") in _ENDS for row in rows),
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
        why=None
        if value is None or best is None
        else f"best {found.get('metric')} {value:.4g}, trial {best.get('trial')}",
    )
