"""The task's metrics in one evaluation: created, updated on every rank, merged and computed on rank 0."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from phalanx.exit.codes import ConfigError
from phalanx.targets.signature import check_call, check_signature

from ..distributed.plain_data import gather_on_rank_zero, pack, unpack
from ..distributed.world import World
from ..loading.rng import integer, seed_all
from ..sinks.shown import Shown
from .answer import checked_shown, joined, new_metrics, numbers_of
from .metric import Metric, Update
from .task import Task
from .torch_metric import TorchMetric, updated_by

_COMPUTE = 6  # separates this seed from other uses
_FORBIDDEN = re.compile(r"[^\w.-]", re.ASCII)  # in the name of a file
_CLOSE = 1e-6  # relative rounding error of a merge with empty metrics


class MetricSet:
    """The metrics of one evaluation on this rank, those that are only drawn among them where `drawn`."""

    def __init__(self, task: Task, world: World, *, drawn: bool = False) -> None:
        self._task = task
        self._world = world
        self._drawn = drawn
        every = new_metrics(task)
        self._left_out = {name for name, metric in every.items() if metric.only_shown and not drawn}
        self._metrics = {name: metric for name, metric in every.items() if name not in self._left_out}
        self._updated: set[str] = set()

    @property
    def names(self) -> list[str]:
        return list(self._metrics)

    def may_lack(self, name: str) -> bool:
        """Whether it depends on the samples that there is a value of this name, as of a class."""
        metric = self._metrics.get(name.partition("/")[0])
        return "/" in name and isinstance(metric, TorchMetric) and metric.classes_vary

    def update(self, updates: Mapping[str, Update], ratios: Iterable[str]) -> None:
        """Update with a batch; `ratios` are the names of its ratios. Raises ConfigError."""
        joined(dict.fromkeys(ratios, 0.0), dict.fromkeys(self._metrics, 0.0))
        for name, update in updates.items():
            if name not in self._metrics:
                if name in self._left_out:
                    continue
                raise ConfigError(
                    f"ratios() of the task returned an Update of {name}, and its metrics() has "
                    f"{', '.join(self._metrics) or 'none'}. Return {{{name!r}: …}} there, made anew"
                )
            if name not in self._updated:
                told = f"ratios() of the task returned an Update of {name} with"
                check_call(updated_by(self._metrics[name]), update.args, update.kwargs, told)
            self._updated.add(name)
            with self._quiet():
                # A model that differentiates in its forward leaves graphs behind, which nobody is to keep.
                args = [_detached(value) for value in update.args]
                self._metrics[name].update(*args, **{key: _detached(value) for key, value in update.kwargs.items()})

    def compute(self) -> dict[str, float]:
        """The values over all ranks' batches, on every rank. All ranks call it, at the end of the evaluation."""
        if not self._metrics:
            return {}
        world = self._world
        if world.size == 1:
            return self._computed()
        packed = world.raise_on_all(self._packed)  # all ranks take part, as in what follows
        gathered = gather_on_rank_zero(packed, world)
        world.watchdog.touch()
        found = world.raise_on_all(lambda: self._merged(gathered[1:]) if world.is_rank_zero else None)
        return world.broadcast_object(found)

    def shown(self) -> dict[str, Shown]:
        """What the metrics show, by names of files, after `compute`; nothing but on rank 0."""
        if not self._world.is_rank_zero:
            return {}
        with self._quiet():
            found = {_FORBIDDEN.sub("_", name): metric.show() for name, metric in self._metrics.items()}
        return checked_shown({name: item for name, item in found.items() if item is not None})

    def sanity_check(self) -> dict[str, float]:
        """Try `compute` on this rank alone, merged with an empty metric. Call it after an update of all metrics.

        Returns the values. Raises ConfigError.
        """
        before = self._world.collectives()
        self._check()
        anew = MetricSet(self._task, self._world, drawn=self._drawn)
        others = [self._packed(), anew._packed()]
        own, merged = self._computed(), anew._merged(others)
        self.shown()
        if self._world.collectives() != before:
            raise ConfigError(
                f"The task's metrics {', '.join(self._metrics)} wait for other ranks, and rank 0 computes alone. Leave "
                "that to merge(others), which gets the other ranks' metrics (of torchmetrics: sync_on_compute=False)"
            )
        for name, value in own.items():
            other = merged.get(name, math.nan)
            if not _same(value, other):
                raise ConfigError(
                    f"The task's metric {name} is {value:g} for a sample batch, and {other:g} where it "
                    "was merged with others that met nothing. merge(others) is to take in all that the others counted"
                )
        return own

    def _check(self) -> None:
        anew = self._new()
        for name, metric in self._metrics.items():
            if anew.get(name) is metric:
                raise ConfigError(
                    f"The task's metrics() gives the same {name} each time, which would remember the evaluation before. "
                    f"Make it there: return {{{name!r}: {type(metric).__name__}(…)}}"
                )
            if not isinstance(metric, TorchMetric):
                check_signature(metric.merge, "others")
                check_signature(metric.compute)
                check_signature(metric.state_dict)
                check_signature(metric.load_state_dict, "state")
            if name not in self._updated and not metric.only_shown:
                raise ConfigError(
                    f"The task's metrics() has {name}, and ratios() returned nothing to update it with for a batch of the "
                    f"evaluation. Return {{{name!r}: Update(…)}} beside the loss, with the arguments of "
                    f"{type(metric).__name__}.update"
                )

    def _new(self) -> dict[str, Metric]:
        return {
            name: metric for name, metric in new_metrics(self._task).items() if self._drawn or not metric.only_shown
        }

    def _packed(self) -> torch.Tensor:
        states = {name: metric.state_dict() for name, metric in self._metrics.items()}
        return pack(states, "the state of the task's metrics")

    def _merged(self, others: Sequence[torch.Tensor]) -> dict[str, float]:
        """The values after merging the packed states `others` into these metrics."""
        loaded = []
        for packed in others:
            loaded.append(self._new())
            for name, state in unpack(packed, self._world.device).items():
                loaded[-1][name].load_state_dict(state)
        with self._quiet():
            for name, metric in self._metrics.items():
                metric.merge([other[name] for other in loaded])
        return self._computed()

    def _computed(self) -> dict[str, float]:
        seed_all(integer(_COMPUTE), self._world.device)
        found: dict[str, float] = {}
        with self._quiet():
            for name, metric in self._metrics.items():
                found = joined(found, numbers_of(name, metric.compute()))
        return found

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without autograd and autocast."""
        with torch.no_grad(), torch.autocast(self._world.device.type, enabled=False):
            yield


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=_CLOSE)
