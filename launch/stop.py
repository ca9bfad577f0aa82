"""`phalanx stop`: ask a run or a sweep that runs anywhere to save and leave."""

import time
from pathlib import Path

import click

from launch.holders import ask_to_leave, holders, is_there
from launch.runs import is_sweep, run_or_sweep
from launch.sweeping.standing import fares
from train.outcome import ConfigError

_LOOK_S = 0.1


@click.command()
@click.argument("run")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when the run has left.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def stop(run: str, wait: bool, root: Path) -> None:
    """Ask RUN, a run or a sweep, by its folder or its name, to save and leave. The same command continues it later.

    It works through the run's folder, from any machine that sees it, and is meant for the start that runs now: a later
    one is not stopped.
    """
    folder = run_or_sweep(run, root)
    asked = holders(folder)
    if not asked:
        raise ConfigError(
            f"{folder} is not running: it is {fares(folder, time.time()).state}. There is nothing to stop"
        )
    ask_to_leave(folder)
    click.echo(f"asked {', '.join(map(str, asked))} to save and leave")
    while wait and any(is_there(folder, holder) for holder in asked):
        time.sleep(_LOOK_S)
    if wait:
        now = fares(folder, time.time())
        click.echo(f"{folder.name} is {now.state} after {'trial' if is_sweep(folder) else 'step'} {now.step}")
