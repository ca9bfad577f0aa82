"""`phalanx stop`: asks a run or a sweep on any machine, through its folder, to save and leave."""

import time
from collections.abc import Sequence
from pathlib import Path

import click

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.lease_holders import Holder
from phalanx.run_folder.liveness import LivenessProbe

from ..common.find_run import find_run_or_sweep, is_sweep, owner_of
from ..common.show import show
from ..common.sweep_folder import OUTPUT
from ..state.holders import ask_to_leave, holders, is_there
from ..state.sweep import state_of

_POLL_S = 0.1
_TELL_S = 5.0  # between two words of who is waited for


@click.command()
@click.argument("run")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when the run has left.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def stop(run: str, wait: bool, root: Path) -> None:
    """Ask RUN, a run or a sweep, by its folder or its name, to save and leave. The same command continues it later.

    It works through the run's folder, from any machine that sees it, and is meant for the start that runs now: a later
    one is not stopped.
    """
    folder = find_run_or_sweep(run, root)
    probe = LivenessProbe()
    asked = _asked(folder, probe)
    show(f"asked {', '.join(map(str, asked))} to save and leave")
    if wait:
        _wait(folder, asked, probe)
        now = state_of(folder, time.time(), probe)
        show(f"{folder.name} is {now.state} after {'trial' if is_sweep(folder) else 'step'} {now.step}")


def _wait(folder: Path, asked: Sequence[Holder], probe: LivenessProbe) -> None:
    """Wait until all of them have left. The run itself ends a rank that does not."""
    began = told = time.monotonic()
    output = folder / (OUTPUT if is_sweep(folder) else names.LOGS)
    while there := [holder for holder in asked if is_there(folder, holder, probe)]:
        if (now := time.monotonic()) > told + _TELL_S:
            show(f"waiting since {now - began:.0f} s for {', '.join(map(str, there))}, see {output}")
            told = now
        time.sleep(_POLL_S)


def _asked(folder: Path, probe: LivenessProbe) -> list[Holder]:
    """Whoever works there is asked to save and leave. Raises ConfigError where nobody does, or the folder is not ours."""
    try:
        if not (found := holders(folder, probe)):
            state = state_of(folder, time.time(), probe).state
            raise ConfigError(f"{folder} is not running: it is {state}. There is nothing to stop")
        ask_to_leave(folder, probe)
    except OSError as error:
        raise ConfigError(
            f"{folder} is not yours to stop: {error.strerror}. Ask {owner_of(folder)}, whose run it is"
        ) from None
    return found
