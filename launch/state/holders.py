"""The processes that train in a folder, and how they are asked to leave: a run's ranks, or those that work on a sweep."""

from pathlib import Path

from phalanx.run_folder import liveness
from phalanx.run_folder.lease_holders import Holder
from phalanx.run_folder.liveness import LivenessProbe
from phalanx.run_folder.stop_file import StopFile

from ..common.find_run import is_sweep
from .sweep_peers import places


def holders(folder: Path, looks: LivenessProbe) -> list[Holder]:
    """Who holds the run in `folder`, one process at most, or works on the sweep in it, right now. Raises OSError."""
    return sorted(_at_work(folder, looks).values(), key=lambda holder: holder.since or 0.0)


def is_there(folder: Path, holder: Holder, looks: LivenessProbe) -> bool:
    """Whether one of them still is. What else a run notes of its holder may change meanwhile."""
    who = (holder.machine, holder.pid, holder.incarnation)
    return who in [(each.machine, each.pid, each.incarnation) for each in holders(folder, looks)]


def is_process(folder: Path, holder: Holder) -> bool | None:
    """Whether the process that one of them names is really at work in the folder; None where that is not told."""
    told = [liveness.is_process_of(place, holder) for place in _places(folder)]
    return True if True in told else None if None in told else False


def ask_to_leave(folder: Path, looks: LivenessProbe) -> None:
    """Ask them all to save and leave. Raises OSError."""
    for place, holder in _at_work(folder, looks).items():
        StopFile(place, holder.incarnation).ask()


def _at_work(folder: Path, looks: LivenessProbe) -> dict[Path, Holder]:
    return {place: holder for place in _places(folder) if (holder := looks.live(place)) is not None}


def _places(folder: Path) -> list[Path]:
    return places(folder) if is_sweep(folder) else [folder]
