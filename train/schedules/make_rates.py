"""Make the rates of an optimizer's groups by the schedule that the config names for them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from phalanx.config.metric_direction import WatchedMetric, plateau_metric, watched
from phalanx.config.overrides import shown
from phalanx.config.schema import DataConfig, Mode
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets

from .group_rates import GroupRates, ParamGroup, TableRates
from .plateau import Plateau, PlateauRates
from .schedule import Schedule, factors
from .torch_rates import EpochRates, EvaluationRates, SteppedRates
from .torch_scheduler import TorchScheduler, check_resumes

Node = Mapping[str, Any]

_OWN = {"_partial_", "interval", "metric"}  # keys of the node of a scheduler of torch that its class does not get
_TORCHS = "torch.optim.lr_scheduler."


def schedule_nodes(schedule: Node, where: str) -> Iterator[tuple[Node, str, type, tuple[str, ...]]]:
    """The nodes of a schedule: node, place, base class, and arguments that are given besides. Raises ConfigError."""
    if not schedule.get("_partial_"):
        if str(schedule.get("_target_")).startswith(_TORCHS):
            raise ConfigError(
                f"{where}._target_={schedule['_target_']} is a scheduler of torch, which is made of the optimizer. Type "
                f"{where}._partial_=true beside it, and {where}.interval=step or epoch"
            )
        yield schedule, where, Schedule, ()
        return
    interval, metric = schedule.get("interval"), schedule.get("metric")
    if metric is not None and not isinstance(metric, str):
        raise ConfigError(f"{where}.metric={shown(metric)} is no name of a metric. Type {where}.metric=loss")
    if plateau_metric(schedule) is None and interval not in ("step", "epoch"):
        key = f"{where}.interval" if "interval" in schedule else f"+{where}.interval"
        raise ConfigError(
            f"{where}.interval={'null' if interval is None else interval} does not say when {schedule.get('_target_')} "
            f"steps. Type {key}=step for once a step, or {key}=epoch for once a pass over the data; in a file, write it "
            "beside the _target_"
        )
    yield from _scheduler_nodes(schedule, where)


def _scheduler_nodes(node: Node, where: str) -> Iterator[tuple[Node, str, type, tuple[str, ...]]]:
    own, nested = _parts(node, where)
    yield own, where, LRScheduler, ("optimizer", *nested)
    for children in nested.values():
        for child, its in children if isinstance(children, list) else [children]:
            yield from _scheduler_nodes(child, its)


def _parts(node: Node, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A scheduler's node without its keys of ours, and apart its arguments that are schedulers, each with its place."""
    own = {name: value for name, value in node.items() if name not in _OWN}
    nested: dict[str, Any] = {}
    for name in [name for name in own if "scheduler" in name]:
        value = own[name]
        if isinstance(value, Mapping) and value.get("_partial_"):
            nested[name] = (own.pop(name), f"{where}.{name}")
        elif isinstance(value, list) and all(isinstance(each, Mapping) and each.get("_partial_") for each in value):
            nested[name] = [(each, f"{where}.{name}.{i}") for i, each in enumerate(own.pop(name))]
    return own, nested


@dataclass(frozen=True)
class RatesMaker:
    """`steps` are those of the run; `epoch_of` a step, counted from 0, is the number of whole epochs before it.

    `data` has the sets of evaluations.
    """

    builder: Targets
    data: DataConfig
    steps: int
    epoch_of: Callable[[int], int]

    def make(
        self,
        schedule: Node,
        where: str,
        optimizer: torch.optim.Optimizer,
        groups: Sequence[ParamGroup],
        own_rate: bool,
    ) -> GroupRates:
        """The rates of `groups`, which are of `optimizer`, by the node `schedule`. Raises ConfigError.

        `own_rate`: the optimizer's step() changes its rate itself, so no schedule can.
        """
        peaks = [None if own_rate or group.get("lr") is None else float(group["lr"]) for group in groups]
        if schedule.get("_partial_"):
            if None in peaks:
                raise ConfigError(_nothing_to_set(optimizer, own_rate))
            return self._of_torch(schedule, where, optimizer, groups)
        built = self.builder.build(schedule, where, Schedule)  # type: ignore[type-abstract]
        table = factors(built, self.steps)
        plateau = isinstance(built, Plateau)
        if all(peak is None for peak in peaks) and (plateau or not bool((table[:-1] == 1.0).all())):
            raise ConfigError(_nothing_to_set(optimizer, own_rate))
        if isinstance(built, Plateau):
            return PlateauRates(groups, peaks, table, built, self._watched(built.metric, built.mode, where))
        return TableRates(groups, peaks, table)

    def _of_torch(
        self, node: Node, where: str, optimizer: torch.optim.Optimizer, groups: Sequence[ParamGroup]
    ) -> GroupRates:
        metric, watch = plateau_metric(node), None
        if metric is not None:
            watch = self._watched(metric, Mode.__members__.get(str(node.get("mode"))), where)
            node = {"mode": watch.mode.name, **node}  # as the metric's name tells, and not always min
        name = str(node["_target_"]).rpartition(".")[2]
        make = partial(TorchScheduler, partial(self._build, node, where), optimizer, groups)
        check_resumes(make, name, where)
        if watch is not None:
            return EvaluationRates(groups, make(), watch)
        if node["interval"] == "epoch":
            return EpochRates(groups, make(), self.epoch_of)
        made = make()
        if made.ends is not None and made.ends < self.steps:
            raise ConfigError(
                f"{where}: {name} ends after {made.ends} steps, and the run has {self.steps}. Type "
                f"{where}.total_steps={self.steps}"
            )
        return SteppedRates(groups, made, self.steps, name)

    def _watched(self, metric: str, mode: Mode | None, where: str) -> WatchedMetric:
        return watched(metric, mode, f"{where}.mode", self.data)

    def _build(self, node: Node, where: str, optimizer: torch.optim.Optimizer) -> LRScheduler:
        own, nested = _parts(node, where)
        made: dict[str, Any] = {
            name: [self._build(child, its, optimizer) for child, its in children]
            if isinstance(children, list)
            else self._build(children[0], children[1], optimizer)
            for name, children in nested.items()
        }
        return self.builder.build(own, where, LRScheduler, optimizer=optimizer, **made)


def _nothing_to_set(optimizer: torch.optim.Optimizer, own_rate: bool) -> str:
    why = "changes its rate itself in its step()" if own_rate else "has no rate, lr, in its groups"
    return (
        f"The optimizer {type(optimizer).__name__} {why}, so there is nothing for the schedule to set. "
        "Type schedule=constant schedule.warmup_steps=0"
    )
