"""`phalanx logs`: what a rank wrote."""

import shutil
import sys
import time
from pathlib import Path

import click

from launch.runs import named
from train import lease
from train.outcome import ConfigError

_LOOK_S = 0.2


@click.command()
@click.argument("run")
@click.option("--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Whose log.")
@click.option(*("-f", "--follow"), is_flag=True, help="Go on until the run ends.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def logs(run: str, rank: int, follow: bool, root: Path) -> None:
    """Print the log of a rank of RUN, a folder or the name of one."""
    folder = named(run, root)
    path = folder / "logs" / f"rank_{rank}.log"
    if not path.exists():
        ranks = sorted(int(log.stem.removeprefix("rank_")) for log in path.parent.glob("rank_*.log"))
        there = f"There are logs of ranks {', '.join(map(str, ranks))}" if ranks else "There is no log of any rank yet"
        raise ConfigError(f"--rank={rank}: {folder.name} has no {path.name}. {there}")
    try:
        with path.open("rb") as file:
            while True:
                lives = follow and lease.live(folder) is not None  # before reading, so that its last words are read
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                if not lives:
                    return
                time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        return
