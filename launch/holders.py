"""The processes that train in a folder, and how they are asked to leave: a run's ranks, or those that work on a sweep."""

from pathlib import Path

from launch.runs import is_sweep
from launch.sweeping.crew import places
from train import lease
from train.hearing import StopFile
from train.lease import Holder


def holders(folder: Path) -> list[Holder]:
    """Who holds the run in `folder`, one process at most, or works on the sweep in it, right now."""
    found = (lease.live(place) for place in _places(folder))
    return sorted((holder for holder in found if holder is not None), key=lambda holder: holder.since or 0.0)


def is_there(folder: Path, holder: Holder) -> bool:
    """Whether one of them still is. What else a run notes of its holder may change meanwhile."""
    who = (holder.machine, holder.pid, holder.incarnation)
    return who in [(each.machine, each.pid, each.incarnation) for each in holders(folder)]


def ask_to_leave(folder: Path) -> None:
    """Ask them all to save and leave."""
    for place in _places(folder):
        if (holder := lease.live(place)) is not None:
            StopFile(place, holder.incarnation).ask()


def _places(folder: Path) -> list[Path]:
    return places(folder) if is_sweep(folder) else [folder]
