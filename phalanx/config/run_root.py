"""The folder that run.root names, and that of a run in it."""

import re
from pathlib import Path

from ..exit.codes import ConfigError


def folder_of_run(root: str, name: str) -> Path:
    """The run's own. Raises ConfigError."""
    return folder_of_runs(root).absolute() / name


def folder_of_runs(root: str) -> Path:
    """Where run folders are, ~ replaced. Raises ConfigError for what names no folder."""
    if not root.strip() or not root.isprintable():
        raise ConfigError(f"run.root={root!r} is empty or holds control characters. Type run.root=runs")
    if re.match(r"[A-Za-z][\w+.-]*://", root):
        raise ConfigError(
            f"run.root={root} is an address, and run folders need a file system, with locks and rename. Type a folder of "
            "one that is mounted, such as run.root=runs, and copy finished runs from there"
        )
    if variable := re.search(r"\$\{?\w+\}?", root):
        raise ConfigError(
            f"run.root={root} holds {variable[0]}, which no shell has replaced, as within single quotes. Type "
            f'run.root="{root}" in double quotes, or a folder without $; in a config file ${{oc.env:NAME}} is replaced'
        )
    try:
        return Path(root).expanduser()
    except RuntimeError:
        raise ConfigError(f"run.root={root}: nobody knows the home folder that ~ means. Type the whole path") from None
