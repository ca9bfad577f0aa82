"""`phalanx run`: locks GPUs, plans and supervises a run on this machine."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from phalanx.config.schema import Device
from phalanx.exit import cause_file
from phalanx.exit.codes import LAUNCHER, ConfigError, ExitCode
from phalanx.exit.duplicate_starts import check_one_machine
from phalanx.exit.messages import say
from phalanx.system.parent_death import end_with

from ..host.gpu_locks import lock_gpus
from ..host.gpu_use import gpus_in_use_elsewhere
from ..host.machine import Machine, this_machine
from ..local.exit_cause import FINISHED, ExitCause
from ..local.plan import plan_start, replay_words
from ..local.supervisor import supervise
from .hydra_words import config_options, grace_option, hydra_words


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    *("-n", "--ranks"),
    type=click.IntRange(min=1),
    help="Number of ranks. Left out: one for each free GPU, or 1 without GPUs.",
)
@click.option("--from", "source", type=Path, metavar="RUN", help="Replay the config of this run folder.")
@config_options
@click.option(
    "--max-restarts",
    type=click.IntRange(min=0),
    default=0,
    help="How often to start again after a crash, a killed rank or a hang.",
)
@grace_option("How long ranks that were told to stop may take to save.")
@click.option(
    *("--dry-run", "--dryrun"), is_flag=True, help="Print the command and its environment, and start nothing."
)
@click.option("--caller", type=click.IntRange(min=1), hidden=True)  # the process to end with, as of phalanx.run
def run(
    overrides: Sequence[str],
    ranks: int | None,
    source: Path | None,
    config_dir: str | None,
    config_name: str | None,
    max_restarts: int,
    grace: int,
    dry_run: bool,
    caller: int | None,
) -> None:
    """Train on this machine, on all free GPUs or on -n ranks.

    KEY=VALUE are Hydra overrides for train/main.py, passed on as they are; after -- so are Hydra's own options.

    Ctrl-C asks the ranks to save and stop; twice, at once. The exit code is that of the cause: 0 finished, 1 a bug, 2
    bad config, 3 preempted, 4 gave up, 5 hung, 6 out of memory, 7 stopped, 8 the run folder
    cannot be written.
    """
    if caller is not None:
        end_with(caller, signal.SIGTERM)
    with _refusals_reported():
        ended = _run(hydra_words(config_dir, config_name, overrides), ranks, source, max_restarts, grace, dry_run)
    cause_file.write(ended.code, LAUNCHER, ended.message)
    sys.exit(ended.code)


@contextmanager
def _refusals_reported() -> Iterator[None]:
    """What is refused before there are ranks goes into the cause file of who started this command, too."""
    try:
        yield
    except ConfigError as error:
        cause_file.write(ExitCode.CONFIG, LAUNCHER, str(error))
        raise


def _run(
    typed: Sequence[str], ranks: int | None, source: Path | None, max_restarts: int, grace_s: int, dry_run: bool
) -> ExitCause:
    check_one_machine(os.environ)
    if source is not None:
        typed = replay_words(source, typed)
    machine = machine_of(typed)
    with lock_gpus(machine.gpus, ranks, gpus_in_use_elsewhere(machine.gpus, os.environ)) as locked:
        planned = plan_start(typed, ranks, locked.gpus, machine, os.environ, grace_s)
        if dry_run:
            click.echo(planned.text(os.environ))
            return FINISHED
        count = ranks or len(locked.gpus) or 1
        say(f"phalanx: starting {count} {'rank' if count == 1 else 'ranks'}")
        return supervise(planned, locked.descriptors, max_restarts, grace_s)


def machine_of(typed: Sequence[str]) -> Machine:
    """This machine, without its GPUs where the config that these words come to trains on the CPU.

    Raises ConfigError: for a config that is bad, and for GPUs that cannot be counted, where it trains on them.
    """
    try:
        machine = this_machine(os.environ, wants_gpus=True)
    except ConfigError:
        if _wants_gpus(typed):
            raise
    else:
        if not machine.gpus or _wants_gpus(typed):
            return machine
    return this_machine(os.environ, wants_gpus=False)


def _wants_gpus(typed: Sequence[str]) -> bool:
    from phalanx.compose.compose import compose, is_query  # here, for Hydra takes longer to import than all the rest

    return not is_query(typed) and compose(typed).config.world.device is not Device.cpu
