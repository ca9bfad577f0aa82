"""`phalanx cancel`: ends a run or a sweep at once, by signals, or cancels its job in the cluster's queue."""

import os
import signal
import time
from pathlib import Path

import click

from phalanx.exit.codes import ConfigError
from phalanx.exit.signals import TWICE_S
from phalanx.run_folder import lease_holders
from phalanx.run_folder.lease_holders import Holder
from phalanx.run_folder.liveness import LivenessProbe

from ..common.find_run import find_run_or_sweep, owner_of
from ..common.show import show
from ..host import processes
from ..state.holders import holders, is_process, is_there
from ..state.submitted import cancelled_mark, submitted
from ..state.sweep import state_of
from . import backend as backends

_POLL_S = 0.05
_LEAVE_S = 10.0  # for ranks that were told twice: they take two


@click.command()
@click.argument("run")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def cancel(run: str, root: Path) -> None:
    """End RUN, a run or a sweep, by its folder or its name, without waiting for it to save; phalanx stop lets it save.

    A run that the cluster has leaves its queue, of an array that element alone, and a sweep with all its jobs. The command
    that began it continues it from its newest checkpoint.
    """
    known = submitted(root, lambda name: backends.backend_named(name, os.environ))
    folder = find_run_or_sweep(run, root, known)
    found = known.get(folder.resolve())
    jobs = () if found is None else found.jobs
    for job in jobs:
        assert found is not None
        found.backend.cancel(job.job)
        show(f"asked {found.backend.name} to end job {job.job}, which was {job.state.lower()}")
    if found is not None and jobs and (mark := cancelled_mark(found.entry)) is not None:
        mark.touch()  # which the job's script does, too, where it comes that far
    # The cluster ends those that run in its jobs.
    probe = LivenessProbe()
    held = [holder for holder in _holders(folder, probe) if not jobs or holder.job is None]
    if not jobs and not held:
        state = state_of(folder, time.time(), probe).state
        raise ConfigError(f"{folder} is neither running nor queued: it is {state}. There is nothing to cancel")
    for holder in held:
        if not lease_holders.is_here(holder):
            raise ConfigError(
                f"{holder} trains {folder}, and a process of another machine cannot be ended from here. Type phalanx stop "
                f"{run}, or this command on {holder.host}"
            )
        _end(folder, holder, probe)
        show(f"ended {holder}")


def _holders(folder: Path, probe: LivenessProbe) -> list[Holder]:
    try:
        return holders(folder, probe)
    except OSError as error:
        raise ConfigError(f"{folder} is not yours to cancel: {error.strerror}. Ask {owner_of(folder)}") from None


def _end(folder: Path, holder: Holder, probe: LivenessProbe) -> None:
    """Send SIGINT twice, as Ctrl-C does; SIGTERM to a process that ignores SIGINT, which then saves and leaves.

    Raises ConfigError when the process does not leave, or cannot be shown to be the run's: what a file says of it is no
    proof, and the folder may be a copy, or a stranger's.
    """
    told = signal.SIGTERM if processes.ignores_signal(holder.pid, signal.SIGINT) else signal.SIGINT
    for wait_s in (1.1 * TWICE_S, _LEAVE_S):
        if not (proof := is_process(folder, holder)):
            if not is_there(folder, holder, probe):
                return
            whose = "belongs to another user" if proof is None else "does not hold that folder"
            raise ConfigError(f"{holder}, which {folder} names, {whose}, so it is not sent a signal: phalanx stop asks")
        try:
            processes.send_signal(holder.pid, told)
        except PermissionError:
            raise ConfigError(
                f"{holder} belongs to another user, who alone can end it. Ask {owner_of(folder)}"
            ) from None
        end_s = time.monotonic() + wait_s
        while time.monotonic() < end_s:
            if not is_there(folder, holder, probe):
                return
            time.sleep(_POLL_S)
    raise ConfigError(f"{holder} was told twice and has not left. Type kill -KILL {holder.pid}")
