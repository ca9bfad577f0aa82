"""`phalanx logs`: what a rank wrote."""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

import click

from launch.runs import named
from train.escape import printable
from train.files import opened
from train.lease import Looks
from train.outcome import ConfigError

_LOOK_S = 0.2
_PIECE = 2**16  # characters


@click.command()
@click.argument("run")
@click.option("--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Whose log.")
@click.option(*("-f", "--follow"), is_flag=True, help="Go on until the run ends.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def logs(run: str, rank: int, follow: bool, root: Path) -> None:
    """Print the log of a rank of RUN, a folder or the name of one."""
    folder = named(run, root)
    path, looks = folder / "logs" / f"rank_{rank}.log", Looks()
    if not os.path.lexists(path):
        names = [log.stem.removeprefix("rank_") for log in path.parent.glob("rank_*.log")]
        ranks = sorted(int(name) for name in names if name.isdecimal())
        there = f"There are logs of ranks {', '.join(map(str, ranks))}" if ranks else "There is no log of any rank yet"
        raise ConfigError(f"--rank={rank}: {folder.name} has no {path.name}. {there}")
    try:
        with os.fdopen(opened(path), encoding="utf-8", errors="replace") as file:
            while True:
                lives = follow and looks.live(folder) is not None  # before reading, so that its last words are read
                _copy(file)
                if not lives:
                    return
                time.sleep(_LOOK_S)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except KeyboardInterrupt:
        return


def _copy(file: TextIO) -> None:
    """What is there now, to standard output."""
    while text := file.read(_PIECE):
        sys.stdout.buffer.write(printable(text).encode("utf-8", "replace"))
    sys.stdout.buffer.flush()
