"""Finds the processes that hold a run's lease or work on a sweep, and asks them to save and leave."""

from pathlib import Path

from phalanx.run_folder import liveness
from phalanx.run_folder.lease_holders import Holder
from phalanx.run_folder.liveness import LivenessProbe
from phalanx.run_folder.stop_file import StopFile

from ..common.find_run import is_sweep
from .sweep_peers import peer_folders


def holders(folder: Path, probe: LivenessProbe) -> list[Holder]:
    """Who holds the run in `folder`, one process at most, or works on the sweep in it, right now. Raises OSError."""
    return sorted(_at_work(folder, probe).values(), key=lambda holder: holder.since or 0.0)


def is_there(folder: Path, holder: Holder, probe: LivenessProbe) -> bool:
    """Whether this holder is still there. Other fields of its lease may have changed."""
    who = (holder.machine, holder.pid, holder.incarnation)
    return who in [(each.machine, each.pid, each.incarnation) for each in holders(folder, probe)]


def is_process(folder: Path, holder: Holder) -> bool | None:
    """Whether the process that a lease names really holds the folder; None where that cannot be found out."""
    told = [liveness.is_process_of(run, holder) for run in _places(folder)]
    return True if True in told else None if None in told else False


def ask_to_leave(folder: Path, probe: LivenessProbe) -> None:
    """Ask them all to save and leave. Raises OSError."""
    for run, holder in _at_work(folder, probe).items():
        StopFile(run, holder.incarnation).ask()


def _at_work(folder: Path, probe: LivenessProbe) -> dict[Path, Holder]:
    return {run: holder for run in _places(folder) if (holder := probe.live(run)) is not None}


def _places(folder: Path) -> list[Path]:
    return peer_folders(folder) if is_sweep(folder) else [folder]
