"""`phalanx stop`: ask a run that runs anywhere to save and leave."""

import json
import time
from pathlib import Path

import click

from launch.runs import named
from launch.standing import standing
from train import lease
from train.files import write_whole
from train.hearing import STOP
from train.outcome import ConfigError

_LOOK_S = 0.1


@click.command()
@click.argument("run")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when the run has left.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def stop(run: str, wait: bool, root: Path) -> None:
    """Ask RUN, a folder or the name of one, to save and leave. The command that began it continues it later.

    It works through the run's folder, from any machine that sees it, and is meant for the start that runs now: a later
    one is not stopped.
    """
    folder = named(run, root)
    holder = lease.live(folder)
    if holder is None:
        raise ConfigError(
            f"{folder} is not running: it is {standing(folder, time.time()).state}. There is nothing to stop"
        )
    write_whole(folder / STOP, json.dumps({"incarnation": holder.incarnation}))
    click.echo(f"asked {holder} to save and leave")
    while wait and (left := lease.live(folder)) is not None and left.incarnation == holder.incarnation:
        time.sleep(_LOOK_S)
    if wait:
        now = standing(folder, time.time())
        click.echo(f"{folder.name} is {now.state} after step {now.step}")
