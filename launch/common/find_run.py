"""Finds the folders of runs and sweeps, by a path or by a name below the root."""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from phalanx.common.suggest import nearest
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names

from .sweep_folder import SWEEP


def check_readable(root: Path) -> None:
    """Raise ConfigError where the folder that holds the runs is closed to this user."""
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            os.scandir(root).close()
        except PermissionError:
            raise ConfigError(f"{root} is closed to you. Ask {owner_of(root)}, whose it is") from None


def find_runs(words: Sequence[str], root: Path, coming: Collection[Path] = ()) -> list[Path]:
    """The run folders that `words` name; without words all below `root`, those that changed last at the end.

    `coming` are folders of runs that need not have begun. Raises ConfigError.
    """
    if words:
        return [find_run(word, root, coming) for word in words]
    begun = sorted((path.parent for path in root.glob(f"*/{names.RESOLVED}")), key=_changed)  # one that is deleted, too
    there = {folder.resolve() for folder in begun}
    return begun + [folder for folder in coming if folder not in there]


def find_run(word: str, root: Path, coming: Collection[Path] = ()) -> Path:
    """The run folder that `word` names by its path, or by its name below `root`. Raises ConfigError when there is none."""
    for folder in (Path(word), root / word):
        if _holds(folder, names.RESOLVED) or folder.resolve() in coming:
            return folder
    if (sweep := find_sweep(word, root)) is not None:
        raise ConfigError(f"{sweep} is a sweep, and its trials are runs: type --root {sweep}")
    there = sorted({path.parent.name for path in root.glob(f"*/{names.RESOLVED}")} | {path.name for path in coming})
    known = f"{nearest(word, there)}phalanx status lists what is there" if there else "There is none at all"
    raise ConfigError(f"{word} is no run's folder, and {root} has no run of that name. {known}")


def find_sweeps(root: Path) -> list[Path]:
    """The folders of the sweeps below `root`."""
    return sorted(path.parent for path in root.glob(f"*/{SWEEP}"))


def find_run_or_sweep(word: str, root: Path, coming: Collection[Path] = ()) -> Path:
    """The folder of the run or the sweep that `word` names. Raises ConfigError when there is none."""
    return find_sweep(word, root) or find_run(word, root, coming)


def is_sweep(folder: Path) -> bool:
    return _holds(folder, SWEEP)


def find_sweep(word: str, root: Path) -> Path | None:
    """The folder of the sweep that `word` names by its path, or by its name below `root`."""
    return next((folder for folder in (Path(word), root / word) if is_sweep(folder)), None)


def _holds(folder: Path, name: str) -> bool:
    """Whether a folder that was named has that file. Raises ConfigError for one that is closed to this user."""
    try:
        return (folder / name).is_file()
    except PermissionError:
        raise ConfigError(f"{folder} is closed to you. Ask {owner_of(folder)}, whose it is") from None


def _changed(run: Path) -> float:
    """Seconds since 1970; 0 for one that is being deleted, or is not shown."""
    found = [0.0]
    for name in (names.EVENTS, names.RESOLVED):
        with suppress(OSError):
            found.append((run / name).lstat().st_mtime)
    return max(found)


def owner_of(folder: Path) -> str:
    """Whose folder it is."""
    try:
        return folder.owner()
    except (OSError, KeyError):  # a number without a name
        return "its owner"
