"""`phalanx sweep`: a hyperparameter search over whole runs, each in a slot of this machine."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from phalanx.common.files import write_atomic
from phalanx.config.schema import Device
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say
from phalanx.run_folder import names
from phalanx.system.nvml import library

from ..common.broken_pipe import ignore_broken_pipe
from ..common.find_run import find_sweep
from ..common.show import show
from ..common.sweep_folder import OUTPUT
from ..host.gpu_locks import lock_gpus
from ..host.gpu_use import gpus_in_use_elsewhere
from ..host.held_signals import HeldSignals
from ..host.machine import this_machine
from ..reporting.sweep_page import sweep_page
from ..reporting.sweep_summary import LEFT, show_summary
from ..reporting.sweep_table import SweepTable
from ..search.experiment import experiment
from ..search.optuna_study import open_search
from ..search.spec import SweepSpec, sweep_spec
from ..state.sweep_peers import SweepPeers
from ..sweep import results
from ..sweep.energy import EnergyMeter, nvml_counter
from ..sweep.process_watcher import ProcessWatcher
from ..sweep.scheduler import Scheduler
from ..sweep.shutdown import NO_ROOM, unwritable
from ..sweep.trial import plan_of
from ..sweep.trial_queue import TrialQueue
from ..sweep.workers import ForkServer, slots
from .hydra_words import config_options, grace_option, hydra_words

_STATES = {ExitCode.BUG: "failed"}  # of a sweep, where it is not called as the code is


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUES]...")
@config_options
@click.option("--best", metavar="SWEEP", help="Print the command that trains the best point of this sweep again.")
@click.option(
    "--save", type=Path, metavar="FILE", help="With --best: write it as an experiment, conf/experiment/mine.yaml."
)
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="Where --best looks for SWEEP.")
@grace_option("How long trials that are told to leave may take to save.")
@click.option("--trial-override", "trial_overrides", multiple=True, hidden=True)  # added by a job; nobody typed it
@click.option("--job-variable", "job_variables", multiple=True, hidden=True)  # that only the sweep's jobs know
def sweep(
    overrides: Sequence[str],
    config_dir: str | None,
    config_name: str | None,
    best: str | None,
    save: Path | None,
    root: Path,
    grace: int,
    trial_overrides: Sequence[str],
    job_variables: Sequence[str],
) -> None:
    """Search for the best config: every point is a whole run, with its own ranks and its own folder.

    Words that name several values span the space, in Hydra's grammar: optim.lr=1e-3,3e-3, 'model=choice(mlp,convnet)',
    'seed=range(0,5)', 'optim.lr=tag(log,interval(1e-4,1e-1))'. All points of a grid are trained, or sweep.trials=N that
    a sampler draws (sweep=tpe, random, grid); sweep/pruner=asha, median or hyperband ends those early that fall behind.

    Ctrl-C saves what is under way, and the same command goes on with it; typed on another machine that sees the folder,
    it helps.
    """
    if best is not None:
        _print_best(results.best_of(find_sweep(best, root) or root / best), save)
        return
    ignore_broken_pipe()
    asked = sweep_spec(hydra_words(config_dir, config_name, overrides), trial_overrides, job_variables)
    (asked.folder / OUTPUT).mkdir(parents=True, exist_ok=True)
    # Signals are held first: one would go to a thread that does not hold it back.
    with HeldSignals() as signals, SweepPeers(asked.folder) as peers:
        try:
            code = _run_sweep(asked, peers, signals, grace)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            say(f"error: {unwritable(asked.folder, error)}")
            code = ExitCode.NO_ROOM
    sys.exit(code)


def _print_best(best: results.BestPoint, save: Path | None) -> None:
    if save is not None:
        text = experiment(best.words, best.title)
        try:
            write_atomic(save, text)
        except OSError as error:
            raise ConfigError(f"{save} cannot be written: {error.strerror}. Type --save with another file") from None
    show(results.command(best.words, best.ranks))


def _run_sweep(asked: SweepSpec, peers: SweepPeers, signals: HeldSignals, grace_s: float) -> ExitCode:
    machine = this_machine(os.environ, wants_gpus=asked.config.world.device is not Device.cpu)
    busy = gpus_in_use_elsewhere(machine.gpus, os.environ)
    with lock_gpus(machine.gpus, None, busy) as locked, library() as nvml, SweepTable(sys.stdout.isatty()) as table:
        slots_here = slots(asked.sweep, machine, locked.gpus, os.environ)
        search = open_search(asked.folder, asked.space, asked.sweep, asked.identities, peers.lock)
        queue = TrialQueue(plan_of(asked, slots_here[0].threads), search, peers)
        queue.resume_stopped()
        watcher = ProcessWatcher(
            queue.plan, slots_here, ForkServer(signals), signals, EnergyMeter(nvml_counter(nvml), slots_here), grace_s
        )
        scheduler = Scheduler(queue, peers, watcher, table.show)
        show(f"{asked.folder}: {search.size} trials, {len(slots_here)} at once here, {asked.sweep.ranks} ranks each")
        code = ExitCode.BUG
        results.write(scheduler, "running")
        try:
            code = scheduler.run()
        finally:
            found = _write_end(scheduler, table, code)
        if scheduler.trouble is None and code not in LEFT:  # who was told to leave has no seconds for it
            write_atomic(asked.folder / names.REPORT, sweep_page(results.read(asked.folder)))
    if not scheduler.storage_lost:
        show_summary(asked, found, code, scheduler)
    return code


def _write_end(scheduler: Scheduler, table: SweepTable, code: ExitCode) -> list[results.TrialRow]:
    """Leave, and write down what the sweep has come to, as far as that can be."""
    if scheduler.storage_lost:
        return []
    found: list[results.TrialRow] = []
    in_vain = (OSError,) if scheduler.trouble is not None else ()  # it was said already what cannot be written
    with suppress(*in_vain), scheduler.peers.lock():  # of several that leave together one knows that it is the last
        state = "running" if scheduler.peers.others() else _STATES.get(code, code.name.lower())
        found = results.write(scheduler, state)
        scheduler.peers.leave()
    table.print_ended(scheduler, found)
    return found
