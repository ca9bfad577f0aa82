"""`phalanx sweep`: a hyperparameter search over whole runs, each in a slot of this machine."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from phalanx.common.files import write_whole
from phalanx.config.schema import AshaConfig, Auto, Device, Mode
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say
from phalanx.system.nvml import library

from ..common.find_run import sweep_named
from ..common.reader import forgive
from ..common.show import show
from ..host.gpu_locks import lock_gpus
from ..host.gpu_use import others
from ..host.held_signals import HeldSignals
from ..host.machine import look
from ..reporting import code_edits
from ..reporting import sweep_page as page
from ..reporting.sweep_table import SweepTable
from ..search.asha import Asha
from ..search.experiment import experiment
from ..search.optuna_study import Search, open_search
from ..search.pruners import pruner_config
from ..search.space import placed
from ..search.spec import SweepSpec, sweep_spec
from ..state.sweep_peers import SweepPeers
from ..sweep import results
from ..sweep.energy import EnergyMeter, nvml_counter
from ..sweep.process_watcher import ProcessWatcher
from ..sweep.scheduler import Scheduler
from ..sweep.shutdown import NO_ROOM, unwritable
from ..sweep.trial import OUTPUT, SweepPlan
from ..sweep.trial_queue import TrialQueue
from ..sweep.workers import ForkServer, slots
from .hydra_words import config_options, grace_option, words

_TOLD = (ExitCode.STOPPED, ExitCode.PREEMPTED)
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
@click.option("--also", multiple=True, hidden=True)  # what a job adds to each trial, and nobody typed
@click.option("--there", multiple=True, hidden=True)  # variables that but the sweep's jobs know
def sweep(
    overrides: Sequence[str],
    config_dir: str | None,
    config_name: str | None,
    best: str | None,
    save: Path | None,
    root: Path,
    grace: int,
    also: Sequence[str],
    there: Sequence[str],
) -> None:
    """Search for the best config: every point is a whole run, with its own ranks and its own folder.

    Words that name several values span the space, in Hydra's grammar: optim.lr=1e-3,3e-3, 'model=choice(mlp,convnet)',
    'seed=range(0,5)', 'optim.lr=tag(log,interval(1e-4,1e-1))'. All points of a grid are trained, or sweep.trials=N that
    a sampler draws (sweep=tpe, random, grid); sweep/pruner=asha, median or hyperband ends those early that fall behind.

    Ctrl-C saves what is under way, and the same command goes on with it; typed on another machine that sees the folder,
    it helps.
    """
    if best is not None:
        _tell(results.best_of(sweep_named(best, root) or root / best), save)
        return
    forgive()
    asked = sweep_spec(words(config_dir, config_name, overrides), also, there)
    (asked.folder / OUTPUT).mkdir(parents=True, exist_ok=True)
    # Signals are held first: one would go to a thread that does not hold it back.
    with HeldSignals() as signals, SweepPeers(asked.folder) as peers:
        try:
            code = _scheduled(asked, peers, signals, grace)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            say(f"error: {unwritable(asked.folder, error)}")
            code = ExitCode.NO_ROOM
    sys.exit(code)


def _tell(best: results.BestPoint, save: Path | None) -> None:
    if save is not None:
        text = experiment(best.words, best.title)
        try:
            write_whole(save, text)
        except OSError as error:
            raise ConfigError(f"{save} cannot be written: {error.strerror}. Type --save with another file") from None
    show(results.command(best.words, best.ranks))


def _scheduled(asked: SweepSpec, peers: SweepPeers, signals: HeldSignals, grace_s: float) -> ExitCode:
    machine = look(os.environ, wants_gpus=asked.config.world.device is not Device.cpu)
    busy = others(machine.gpus, os.environ)
    with lock_gpus(machine.gpus, None, busy) as claimed, library() as nvml, SweepTable(sys.stdout.isatty()) as table:
        places = slots(asked.sweep, machine, claimed.gpus, os.environ)
        search = open_search(asked.folder, asked.space, asked.sweep, asked.identities, peers.lock)
        queue = TrialQueue(_plan(asked, places[0].threads), search, peers)
        queue.resume_stopped()
        watcher = ProcessWatcher(
            queue.plan, places, ForkServer(signals), signals, EnergyMeter(nvml_counter(nvml), places), grace_s
        )
        scheduler = Scheduler(queue, peers, watcher, table.show)
        show(f"{asked.folder}: {search.size} trials, {len(places)} at once here, {asked.sweep.ranks} ranks each")
        code = ExitCode.BUG
        results.write(scheduler, "running")
        try:
            code = scheduler.run()
        finally:
            found = _last_words(scheduler, table, code)
        if scheduler.trouble is None and code not in _TOLD:  # who was told to leave has no seconds for it
            write_whole(asked.folder / page.PAGE, page.page(results.read(asked.folder)))
    if not scheduler.storage_lost:
        _sum_up(asked, found, code, scheduler)
    return code


def _last_words(scheduler: Scheduler, table: SweepTable, code: ExitCode) -> list[results.TrialRow]:
    """Leave, and write down what the sweep has come to, as far as that can be."""
    if scheduler.storage_lost:
        return []
    found: list[results.TrialRow] = []
    in_vain = (OSError,) if scheduler.trouble is not None else ()  # it was said already what cannot be written
    with suppress(*in_vain), scheduler.peers.lock():  # of several that leave together one knows that it is the last
        state = "running" if scheduler.peers.others() else _STATES.get(code, code.name.lower())
        found = results.write(scheduler, state)
        scheduler.peers.leave()
    table.tell(scheduler, found)
    return found


def _plan(asked: SweepSpec, threads: int) -> SweepPlan:
    from phalanx.compose.compose import compose
    from phalanx.config.overrides import quoted

    config, sweep = asked.config, asked.sweep
    shared = [*asked.also, f"run.root={quoted(str(asked.folder))}"]
    if config.wandb.group is None and not os.environ.get("WANDB_RUN_GROUP"):
        shared.append(f"wandb.group={quoted(asked.folder.name)}")
    assert sweep.metric is not None
    assert sweep.mode is not None
    return SweepPlan(
        folder=asked.folder,
        space=asked.space,
        config=sweep,
        metric=sweep.metric,
        mode=sweep.mode,
        seed=config.seed,
        shared=tuple(shared),
        threads=threads if isinstance(config.train.threads, Auto) else None,
        compose=compose,
        asha=_asha(asked),
        open=frozenset(asked.open),
    )


def _asha(asked: SweepSpec) -> Asha | None:
    pruner, config = pruner_config(asked.sweep.pruner), asked.config
    if not isinstance(pruner, AshaConfig):
        return None
    assert pruner.first_step is not None
    smaller = asked.sweep.mode is Mode.min
    return Asha(pruner.first_step, pruner.eta, config.train.global_batch, smaller)


def _sum_up(asked: SweepSpec, found: list[results.TrialRow], code: ExitCode, scheduler: Scheduler) -> None:
    assert asked.sweep.mode is not None
    first = results.best(found, asked.sweep.mode)
    if code in _TOLD:
        show(_stopped(found, scheduler.unsaved))
    elif code is ExitCode.BUG:
        show(f"no trial was trained to its end{_commonest(scheduler.search)}")
    elif (elsewhere := sum(row.state == "running" for row in found)) and code is ExitCode.FINISHED:
        show(f"nothing is left to do here; {elsewhere} trials are under way elsewhere")
    elif code is ExitCode.GAVE_UP:
        reason = _commonest(scheduler.search)
        show(f"gave up: more than {asked.sweep.max_failures} trials failed (sweep.max_failures){reason}")
    if edited := code_edits.differences(asked.folder, found):
        show(edited)
    if first is not None:
        show(f"best: {asked.sweep.metric} {first.value:.5g}, trial {first.trial}")
        show(f"page: {asked.folder / page.PAGE}" if code not in _TOLD else f"page: phalanx report {asked.folder}")
        show(results.command([*placed(asked.space.typed, first.words), *first.added], asked.sweep.ranks))


def _stopped(found: list[results.TrialRow], unsaved: Sequence[int]) -> str:
    if unsaved:
        named = ", ".join(f"{trial:04d}" for trial in sorted(unsaved))
        return f"stopped; {named} had not saved and was ended: the same command continues from the newest checkpoints"
    if alone := [row.run for row in found if row.state == "stopped"]:
        return f"{', '.join(alone)} was stopped and is saved; the same command continues with it"
    return "stopped, all saved; the same command continues"


def _commonest(search: Search) -> str:
    """Why trials failed, if any did."""
    reasons = search.reasons()
    if not reasons:
        return ""
    first, count = reasons[0]
    failed = sum(each for _, each in reasons)
    told = f"all {failed} failed" if search.all_failed() else f"{failed} failed"
    return f": {told}, {count} of them with: {first}" if len(reasons) > 1 else f": {told} with: {first}"
