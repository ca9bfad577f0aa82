"""Check symbolic links in a run folder: it and its `checkpoints` may be links, where this user or root made them.

Any other link below was put there by whoever wrote the folder, to have other files read, written or deleted.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from ..exit.codes import ConfigError
from . import names


def check_links(run: Path) -> None:
    """Raise ConfigError for the first link that is not allowed. Call it before anything is written or deleted."""
    for link in (run, run / names.CHECKPOINTS):
        if link.is_symlink() and link.lstat().st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{link} is a link that another user made, so it is not followed. Type the folder itself")
    for link in _links(run):
        raise ConfigError(
            f"{link} is a link, and below a run's folder none is followed but {names.CHECKPOINTS}. Put what it points to "
            "in its place, or remove it"
        )


def _links(run: Path) -> Iterator[Path]:
    """The links in folders that a run itself writes to; trackers may use links in theirs."""
    checkpoints = run / names.CHECKPOINTS
    yield from (entry for entry in entries(run) if entry != checkpoints and entry.is_symlink())
    shown = run / names.SHOWN
    files = (run / names.LEASE, run / names.LOGS, run / names.PREDICTIONS, shown, *entries(shown))
    for folder in (*files, checkpoints, *entries(checkpoints)):
        yield from (entry for entry in entries(folder) if entry.is_symlink())


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted; nothing where it is none, or not shown to us, which those say who need it."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
