"""`phalanx sweep`: a search over whole runs, each in a slot of this machine."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from launch.claim import claim
from launch.ears import Ears
from launch.machine import look
from launch.runs import sweep_named
from launch.submission import run_root
from launch.sweeping import page, results
from launch.sweeping.board import Board
from launch.sweeping.conductor import Conductor
from launch.sweeping.crew import Crew
from launch.sweeping.experiment import experiment
from launch.sweeping.plan import Plan
from launch.sweeping.pool import Pool
from launch.sweeping.rungs import Ladder
from launch.sweeping.search import open_search, tries_all
from launch.sweeping.slots import Warm, slots
from launch.sweeping.space import Space, read
from launch.words import config_options, words
from train.config import Auto, Config, Device, Mode, PrunerName, SweepConfig
from train.files import write_whole
from train.outcome import ConfigError, ExitCode


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUES]...")
@config_options
@click.option("--best", metavar="SWEEP", help="Print the command that trains the best point of this sweep again.")
@click.option(
    "--save", type=Path, metavar="FILE", help="With --best: write it as an experiment, conf/experiment/mine.yaml."
)
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="Where --best looks for SWEEP.")
def sweep(
    overrides: Sequence[str],
    config_dir: str | None,
    config_name: str | None,
    best: str | None,
    save: Path | None,
    root: Path,
) -> None:
    """Search for the best config: every point is a whole run, with its own ranks and its own folder.

    Words that name several values span the space, in Hydra's grammar: optim.lr=1e-3,3e-3, 'model=choice(mlp,convnet)',
    'seed=range(0,5)', 'optim.lr=tag(log,interval(1e-4,1e-1))'. All points of a grid are trained, or sweep.trials=N that
    a sampler draws (sweep=tpe, random, grid); sweep/pruner=asha, median or hyperband ends those early that fall behind.

    Ctrl-C saves what is under way, and the same command goes on with it.
    """
    if best is not None:
        _tell(results.best_of(sweep_named(best, root) or root / best), save)
        return
    order = _order(words(config_dir, config_name, overrides))
    (order.folder / "output").mkdir(parents=True, exist_ok=True)
    with Crew(order.folder) as crew:
        code = _conducted(order, crew)
    sys.exit(code)


def _tell(best: results.Best, save: Path | None) -> None:
    if save is not None:
        text = experiment(best.words, best.title)
        try:
            write_whole(save, text)
        except OSError as error:
            raise ConfigError(f"{save} cannot be written: {error.strerror}. Type --save with another file") from None
    click.echo(results.command(best.words, best.ranks))


@dataclass(frozen=True)
class _Order:
    """A checked command line. `config` is that of a point, `sweep` says which metric ranks the trials."""

    folder: Path
    space: Space
    config: Config
    sweep: SweepConfig
    identity: Mapping[str, Any]


def _order(typed: Sequence[str]) -> _Order:
    """Raises ConfigError for whatever is wrong, before anything is written."""
    from train.compose import choices, compose  # here, for Hydra takes longer to import than all the rest
    from train.identity import defining, leaves
    from train.limits import check

    space = read(typed, lambda group: choices(group, [word for word in typed if word.startswith("-")]))
    corners = [compose(space.words(point)).config for point in space.corners()]
    for corner in corners:
        check(corner, corner.sweep.ranks)
    config = corners[0]
    sweep = _resolved(config, typed, space)
    if tries_all(sweep):
        space.grid()
    apart = {"trials", "slots", "per_gpu", "ranks", "max_failures", "storage"}
    settings = {name: str(value) for name, value in vars(sweep).items() if name not in apart}
    swept = {dimension.key.lstrip("+") for dimension in space.dimensions}
    fixed = {key: value for key, value in leaves(defining(config)) if not any(_under(key, name) for name in swept)}
    dimensions = [vars(dimension) for dimension in space.dimensions]
    identity = {"space": dimensions, **settings, "shared config": _sha256(fixed)}
    named = [word for word in typed if word.startswith("run.name=")]
    name = str(config.run.name) if named else f"sweep-{_sha256(identity)[:8]}"
    return _Order(run_root(config.run) / name, space, config, sweep, identity)


def _resolved(config: Config, typed: Sequence[str], space: Space) -> SweepConfig:
    """The sweep's settings with what they leave to others filled in."""
    sweep = config.sweep
    if any(word.startswith("run.fresh=") for word in typed):
        raise ConfigError(
            "run.fresh would set every trial aside when the sweep goes on. Type run.name=… for a new sweep"
        )
    if sweep.metric is None:
        if config.checkpoint.best_metric is None:
            raise ConfigError(
                "Nothing says what makes a trial good. Type sweep.metric=loss, or another one of the task"
            )
        sweep = replace(sweep, metric=config.checkpoint.best_metric, mode=config.checkpoint.best_mode)
    if sweep.seeds > 1 and any(dimension.key == "seed" for dimension in space.dimensions):
        raise ConfigError(f"sweep.seeds={sweep.seeds} sets the seeds, and seed is swept, too. Leave one of them out")
    if sweep.pruner.name is PrunerName.none:
        return sweep
    if sweep.seeds > 1:
        raise ConfigError(
            f"sweep.seeds={sweep.seeds} ranks points by the mean of their runs, and sweep/pruner={sweep.pruner.name.name} "
            "ends single runs. Type sweep/pruner=none, or sweep.seeds=1"
        )
    first = sweep.pruner.first_step or config.eval.every
    if config.eval.every is None or first is None:
        raise ConfigError(
            f"sweep/pruner={sweep.pruner.name.name} compares trials under way, and they are evaluated at their ends only. "
            "Type eval.every=… with a number of steps"
        )
    return replace(sweep, pruner=replace(sweep.pruner, first_step=first))


def _conducted(order: _Order, crew: Crew) -> ExitCode:
    machine = look(os.environ, wants_gpus=order.config.world.device is not Device.cpu)
    with claim(machine.gpus, None) as claimed, Ears() as ears, Board(sys.stdout.isatty()) as board:
        places = slots(order.sweep, machine, claimed.gpus)
        search = open_search(order.folder, order.space, order.sweep, order.identity, crew.alone)
        pool = Pool(_plan(order, places[0].threads), search, crew)
        conductor = Conductor(pool, crew, places, Warm(ears), ears, board.show)
        click.echo(f"{order.folder}: {search.size} trials, {len(places)} at once here, {order.sweep.ranks} ranks each")
        code = ExitCode.BUG
        results.write(conductor, "running")
        try:
            code = conductor.run()
        finally:
            state = "running" if crew.others() else code.name.lower()
            found = results.write(conductor, state)
        page.write(conductor, found, state)
    _sum_up(order, found, code)
    return code


def _plan(order: _Order, threads: int) -> Plan:
    from train.compose import compose
    from train.overrides import quoted

    config, sweep = order.config, order.sweep
    shared = [f"run.root={quoted(str(order.folder))}"]
    if config.wandb.group is None:
        shared.append(f"wandb.group={quoted(order.folder.name)}")
    if isinstance(config.train.threads, Auto):
        shared.append(f"train.threads={threads}")
    assert sweep.metric is not None
    return Plan(
        folder=order.folder,
        space=order.space,
        config=sweep,
        metric=sweep.metric,
        seed=config.seed,
        shared=tuple(shared),
        compose=compose,
        ladder=_ladder(order),
    )


def _ladder(order: _Order) -> Ladder | None:
    pruner, config = order.sweep.pruner, order.config
    if pruner.name is not PrunerName.asha:
        return None
    assert pruner.first_step is not None
    assert config.eval.every is not None
    smaller = order.sweep.mode is Mode.min
    return Ladder(pruner.first_step, pruner.eta, config.train.global_batch, config.eval.every, smaller)


def _sum_up(order: _Order, found: list[results.Row], code: ExitCode) -> None:
    first = results.best(found, order.sweep.mode)
    if code in (ExitCode.STOPPED, ExitCode.PREEMPTED):
        click.echo("stopped, all saved; the same command continues")
    elif code is ExitCode.GAVE_UP:
        click.echo(f"gave up: more than {order.sweep.max_failures} trials failed (sweep.max_failures)")
    if first is not None:
        click.echo(f"best: {order.sweep.metric} {first.value:.5g}, trial {first.trial}")
        click.echo(f"page: {order.folder / page.PAGE}")
        click.echo(results.command([*order.space.fixed, *first.words], order.sweep.ranks))


def _sha256(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _under(key: str, name: str) -> bool:
    """Whether a key of the config is one that `name` sets, a key or a group."""
    dotted = name.partition("@")[0].replace("/", ".")
    return key == dotted or key.startswith(f"{dotted}.")
