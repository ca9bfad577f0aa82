"""Metrics of torchmetrics, exact over ranks: their states are merged here, and they never talk to other ranks."""

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch

from phalanx.exit.codes import ConfigError

from .metric import Metric

_MEAN_AP = "MeanAveragePrecision"
_COUNT = "_update_count"


def is_torch_metric(metric: object) -> bool:
    """Whether `metric` is one of torchmetrics, or a collection of them. It was imported by then, if so."""
    library = sys.modules.get("torchmetrics")
    return library is not None and isinstance(metric, (library.Metric, library.MetricCollection))


def updated_by(metric: Metric) -> Callable[..., None]:
    """What an Update is handed to: of one of torchmetrics its own method, whose signature tells more."""
    own: Callable[..., None] = metric._metric.update if isinstance(metric, TorchMetric) else metric.update
    return own


class TorchMetric(Metric):
    """A metric of torchmetrics: any class of it, a MetricCollection, or one of their wrappers.

    Each rank updates a copy of its own with its batches. Their states come to rank 0, where they are reduced as
    torchmetrics would (sum, mean, min, max, concatenation, stacking), in the order of the samples; ranks that met no batch
    are left out. What torchmetrics keeps as counts, or sample by sample, has the same bits on any number of ranks.

    A tensor of several numbers is `name/0`, `name/1` …, one a class; a dict of numbers is by name. Mean average precision
    is `map`, `map_50` …, and with class_metrics=True `map/<class>`; what it gives as -1, not defined, is NaN.
    """

    def __init__(self, metric: Any) -> None:
        self._metric = copy.deepcopy(metric)
        self._metric.reset()
        for part in self._parts().values():
            part.sync_on_compute = part._to_sync = part.dist_sync_on_step = False
        self.classes_vary = getattr(metric, "class_metrics", False)  # which classes it has numbers of, the data say

    def update(self, *args: Any, **kwargs: Any) -> None:
        device = next((found.device for found in _tensors([*args, *kwargs.values()])), None)
        if device is not None and device != self._metric_device():
            self._metric.to(device)
        self._metric.update(*args, **kwargs)

    def merge(self, others: Sequence[Self]) -> None:
        everyone = [metric._parts() for metric in (self, *others)]
        for path, part in self._parts().items():
            met = [parts[path] for parts in everyone if getattr(parts[path], _COUNT)]
            if not met:
                continue
            for name in part._defaults:
                setattr(part, name, _reduced([getattr(other, name) for other in met], part._reductions[name]))
            setattr(part, _COUNT, sum(getattr(other, _COUNT) for other in met))
            part._computed = None

    def compute(self) -> float | Mapping[str, float]:
        found = self._metric.compute()
        if type(self._metric).__name__ == _MEAN_AP:
            return _mean_ap(found)
        if isinstance(found, Mapping):
            return {
                str(key): number for name, value in found.items() for key, number in _flat(str(name), value).items()
            }
        flat = _flat("", found)
        return flat[""] if list(flat) == [""] else {key.removeprefix("/"): number for key, number in flat.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            path: {name: getattr(part, name) for name in (*part._defaults, _COUNT)}
            for path, part in self._parts().items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        parts = self._parts()
        for path, values in state.items():
            for name, value in values.items():
                setattr(parts[path], name, value)

    def _parts(self) -> dict[str, Any]:
        """The metrics that hold states, by their names as modules: itself, those of a collection, those wrapped."""
        return {name: module for name, module in self._metric.named_modules() if hasattr(module, "_defaults")}

    def _metric_device(self) -> torch.device:
        return next(iter(self._parts().values())).device  # type: ignore[no-any-return]


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, Mapping | list | tuple):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _tensors(value)


def _reduced(states: list[Any], reduction: Any) -> Any:
    """One state of all ranks, as torchmetrics' own synchronisation gives it."""
    if isinstance(states[0], list):
        return [item for state in states for item in state]
    if len(states) == 1:
        return states[0]
    stacked = torch.stack([state.to(states[0].device) for state in states])
    return stacked if reduction is None else reduction(stacked)


def _flat(name: str, value: Any) -> dict[str, float]:
    """A number under its name, or a tensor of several under name/0, name/1 …"""
    if not isinstance(value, torch.Tensor):
        return {name: value}
    if value.numel() == 1:
        return {name: float(value)}
    if value.dim() != 1:
        raise ConfigError(
            f"A metric of torchmetrics computed a tensor of shape {tuple(value.shape)}, and a line of metrics holds "
            "numbers. Take one that gives a number, or one a class; show() can show a matrix"
        )
    return {f"{name}/{i}": number for i, number in enumerate(value.tolist())}


def _mean_ap(found: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """`map` is the value itself, map_50 … beside it, and one of each class where they were asked for."""
    classes = found["classes"].flatten().tolist()
    numbers: dict[str, float] = {}
    for name, value in found.items():
        if name == "map_per_class" and value.dim():
            numbers |= {str(kind): number for kind, number in zip(classes, value.tolist(), strict=True)}
        elif not name.endswith("_per_class") and name != "classes" and value.numel() == 1:
            numbers[name.removeprefix("map")] = float(value)
    return {name: math.nan if number == -1 else number for name, number in numbers.items()}
