"""The targets of a config: their kinds, checks, and the packages whose code they run."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from phalanx.compose.hydra_api import CONF
from phalanx.config.metric_direction import data_sets
from phalanx.config.schema import CommHook, Config, ParallelConfig
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.targets.kinds import CALLABLE
from phalanx.targets.trust import Trust

from ...loading.batch import Augment
from ...optim.param_groups import groups_of
from ...parallel.strategy import ParallelStrategy
from ...prepared.cache import Cache
from ...samplers.sampler import Sampler
from ...schedules.make_rates import schedule_nodes
from ...schedules.schedule import Schedule
from ...sinks.sink import Sink
from ...tasks.task import Task

KINDS: tuple[type, ...] = (
    *(nn.Module, Dataset, Task, torch.optim.Optimizer, Augment, Schedule, ParallelStrategy, Sink),
    *(torch.optim.lr_scheduler.LRScheduler, Sampler),
)


def targets(config: Config, foreign: bool, cache: Cache | None = None) -> Targets:
    """The builder of the config's targets; of a `foreign` config, one that came with a run's folder, with trust limits.

    `cache` is where data are prepared, that of the config where it is None.
    """
    return Targets(KINDS, Trust(config.run.trust) if foreign else None, {Cache: cache or Cache(config.data.cache)})


def check_targets(config: Config, builder: Targets) -> None:
    """Check classes and arguments of all targets without building any. Raises ConfigError."""
    for node, where, kind, given in _nodes(config):
        builder.check(node, where, kind, given)
    for name, node in config.sinks.items():  # apart from the others: their code changes no result
        builder.check(node, f"sinks.{name}", Sink)
    _check_options(config.parallel, builder)


def check_evaluated_targets(config: Config, builder: Targets) -> None:
    """Of a run that is not trained now: check what its evaluation builds. Raises ConfigError."""
    for node, where, kind, given in _nodes(config):
        evaluated = where in ("model", "task", "data.collate") or kind in (Dataset, ParallelStrategy)
        if evaluated and where != "data.train":
            builder.check(node, where, kind, given)


def packages(config: Config, builder: Targets) -> list[str]:
    """The packages whose code the config's targets run, and those of run.imports."""
    imported = {name.partition(".")[0] for name in config.run.imports}
    return sorted(imported.union(*(builder.packages(node, where, kind) for node, where, kind, _ in _nodes(config))))


def _nodes(config: Config) -> Iterable[tuple[Mapping[str, Any], str, type, tuple[str, ...]]]:
    yield config.model, "model", nn.Module, ()
    for name, node in data_sets(config.data).items():
        yield node, f"data.{name}", Dataset, ()
    if config.data.augment is not None:
        yield config.data.augment, "data.augment", Augment, ()
    if config.data.collate is not None:
        yield config.data.collate, "data.collate", CALLABLE, ()
    if config.data.sampler is not None:
        yield config.data.sampler, "data.sampler", Sampler, ()
    yield config.task, "task", Task, ()
    for group in groups_of(config.optim, config.schedule):
        yield group.node, group.node_where, torch.optim.Optimizer, ("params",)
        if group.options:
            yield {**group.node, **group.options}, group.where, torch.optim.Optimizer, ("params",)
        yield from schedule_nodes(group.schedule, group.schedule_where)
    where = "parallel.args" if config.parallel.args else "parallel"
    yield strategy_node(config.parallel), where, ParallelStrategy, ("module", "world", "config")


def _check_options(config: ParallelConfig, builder: Targets) -> None:
    """Raise ConfigError for an option that is set and that the strategy does not read.

    It is set where it is not as in conf/parallel/ddp.yaml, whose keys the config of every strategy has.
    """
    found = builder.resolve(strategy_node(config), "parallel", ParallelStrategy)
    if not (isinstance(found, type) and issubclass(found, ParallelStrategy)):
        return
    unread = [
        option.name for option in fields(ParallelConfig) if option.name not in ("_target_", "args", *found.options)
    ]
    if not unread:
        return
    unset = yaml.safe_load((CONF / "parallel" / "ddp.yaml").read_text(encoding="utf-8"))
    for name in unread:
        value = getattr(config, name)
        plain = value.name if isinstance(value, CommHook) else value
        if plain != unset[name]:
            shown = str(plain).lower()
            raise ConfigError(
                f"parallel.{name}={shown} is set, and {found.__name__} does not read it. Leave it out, or list it in the "
                "class's `options` where it does"
            )


def strategy_node(config: ParallelConfig) -> dict[str, Any]:
    """The other keys are passed as `config`."""
    return {**config.args, "_target_": config._target_}
