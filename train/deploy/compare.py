"""Hold an exported model against the trained one: outputs on real inputs, and the metrics of the whole evaluation sets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phalanx.deployment.layout import BF16, FP16, FP32, HF, INT8, SAFETENSORS
from phalanx.exit.codes import ConfigError, ParityMissed

from ..distributed.world import World
from .call_form import CallForm
from .evaluate import metrics_of
from .observed import Observed
from .parts import TrainedParts
from .runtimes.runtime import Runtime, as_array

_OUTPUTS = {FP32: 1e-3, FP16: 2e-2, BF16: 1e-1, INT8: 5e-1}  # difference over the largest output
_METRICS = {FP32: 1e-3, FP16: 1e-2, BF16: 2e-2, INT8: 2e-2}
_SAME_CODE = 1e-6  # where the model's own code computes, with the same numbers
AGREEMENT = "agreement"  # metric: the share of largest entries that are the same, where the task's own needs more


@dataclass
class Gap:
    """The largest difference of one output so far, and the largest number of it."""

    largest: float = 0.0
    scale: float = 0.0

    @property
    def relative(self) -> float:
        return self.largest / max(self.scale, 1e-12)


@dataclass
class Difference:
    """A gap for each output, as each has a scale of its own; `same` of `counted` largest entries of the first agree."""

    gaps: dict[str, Gap] = field(default_factory=dict)
    calls: int = 0
    same: int = 0
    counted: int = 0

    @property
    def relative(self) -> float:
        return max((gap.relative for gap in self.gaps.values()), default=0.0)

    @property
    def largest(self) -> float:
        return max((gap.largest for gap in self.gaps.values()), default=0.0)

    def add(self, other: "Difference") -> None:
        for name, gap in other.gaps.items():
            mine = self.gaps.setdefault(name, Gap())
            mine.largest, mine.scale = max(mine.largest, gap.largest), max(mine.scale, gap.scale)
        self.calls, self.same, self.counted = (
            self.calls + other.calls,
            self.same + other.same,
            self.counted + other.counted,
        )

    def take(self, ours: Mapping[str, torch.Tensor], theirs: Mapping[str, NDArray[Any]]) -> None:
        """Raises ParityMissed for outputs of another shape."""
        self.calls += 1
        for name, tensor in ours.items():
            mine = self.gaps.setdefault(name, Gap())
            expected, found = tensor.detach().cpu().double().numpy(), np.asarray(theirs[name], np.float64)
            if expected.shape != found.shape:
                raise ParityMissed(
                    f"{name} of the exported model has the shape {found.shape}, and of the trained one {expected.shape}"
                )
            if not expected.size:
                continue
            finite = np.isfinite(expected)
            if (
                not np.array_equal(expected[~finite], found[~finite], equal_nan=True)
                or not np.isfinite(found[finite]).all()
            ):
                mine.largest = math.inf
                continue
            gap = np.abs(expected[finite] - found[finite])
            mine.largest = max(mine.largest, float(gap.max(initial=0.0)))
            mine.scale = max(mine.scale, float(np.abs(expected[finite]).max(initial=0.0)))
        first = next(iter(ours.values()))
        if first.is_floating_point() and first.dim() >= 2 and first.shape[-1] > 1:
            one, other = (
                first.detach().cpu().double().numpy().argmax(-1),
                np.asarray(theirs[next(iter(ours))]).argmax(-1),
            )
            self.same += int((one == other).sum())
            self.counted += one.size


class Exported(nn.Module):
    """Stands in for the trained model in an evaluation: the runtime answers, and is held against the model each time."""

    def __init__(self, model: nn.Module, form: CallForm, runtime: Runtime, found: "SimpleQueue[Difference]") -> None:
        """`found` gets the difference of each call: an evaluation puts back all else that a model references."""
        super().__init__()
        self.trained = model
        self._form, self._runtime, self._found = form, runtime, found

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("trained"), name)
            if callable(found) or isinstance(found, torch.Tensor):
                raise _NeedsMoreError(name) from None
            return found  # a setting, such as `config`

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inputs = self._form.taken(self.trained, args, kwargs)
        if inputs is None or self._form.without_labels:
            raise _NeedsMoreError("another call")
        ours = self._form.call(self.trained, inputs)
        theirs = answered(self._runtime, inputs)
        self._found.put(_difference(ours, theirs))
        tensors = {
            name: torch.from_numpy(np.array(theirs[name])).to(tensor.device, tensor.dtype)
            for name, tensor in ours.items()
        }
        return self._form.answered(tensors)


class _NeedsMoreError(Exception):
    """The task does more with the model than to call its forward as it was exported."""


@dataclass(frozen=True)
class Comparison:
    """`metrics` by split/name, of the trained and of the exported model. `tolerance` is of `max_difference`."""

    max_difference: float
    absolute_difference: float
    tolerance: float
    metric_name: str
    metric: float | None
    metric_exported: float | None
    metric_tolerance: float
    metrics: Mapping[str, Mapping[str, float | None]]
    batches: list[int]
    samples: int
    runtime: str
    notes: list[str] = field(default_factory=list)


def compare(parts: TrainedParts, observed: Observed, runtime: Runtime, to: str, dtype: str, world: World) -> Comparison:
    """Raises ParityMissed where an output or a metric differs by more than its tolerance."""
    exact = dtype == FP32 and to in (SAFETENSORS, HF)
    tolerance = _SAME_CODE if exact else _OUTPUTS[dtype]
    samples = sum(evaluation.samples for evaluation in parts.evaluations.values())
    metric_tolerance = _METRICS[dtype] if dtype == FP32 else max(_METRICS[dtype], 1.0 / samples)
    difference, sizes = Difference(), list(observed.sizes)
    for size, call in zip(sizes, observed.calls, strict=True):
        difference.take(call.outputs(), _answer_of(runtime, call.inputs(), size))
    _check_outputs(difference, tolerance, f"in batches of {', '.join(map(str, sizes))}")
    found, notes = _exported_metrics(parts, observed, runtime, difference, world)
    _check_outputs(difference, tolerance, "on the whole evaluation set")
    pairs = {
        f"{split}/{name}": {"trained": value, "exported": found[split][name]}
        for split, metrics in (observed.metrics.items() if found else ())
        for name, value in metrics.items()
    }
    if not found:
        share = difference.same / difference.counted if difference.counted else None
        pairs = {AGREEMENT: {"trained": None if share is None else 1.0, "exported": share}}
    for name, pair in pairs.items():
        _check_metric(name, pair["trained"], pair["exported"], metric_tolerance)
    name = _main(parts, list(pairs))
    main = pairs[name]
    return Comparison(
        *(
            difference.relative,
            difference.largest,
            tolerance,
            name,
            main["trained"],
            main["exported"],
            metric_tolerance,
        ),
        *(pairs, sizes, samples, runtime.told, notes),
    )


def answered(runtime: Runtime, inputs: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    return runtime({name: as_array(tensor.detach()) for name, tensor in inputs.items()})


def _answer_of(runtime: Runtime, inputs: Mapping[str, torch.Tensor], size: int) -> dict[str, NDArray[Any]]:
    try:
        return answered(runtime, inputs)
    except Exception as error:
        raise ParityMissed(
            f"The exported model fails on a batch of {size}, which the trained one answers: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        ) from error


def _exported_metrics(
    parts: TrainedParts, observed: Observed, runtime: Runtime, difference: Difference, world: World
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The metrics of the exported model by split; none where the task asks for more than its forward, and why."""
    found = SimpleQueue[Difference]()
    replaced = replace(parts, model=Exported(parts.model, observed.form, runtime, found))
    try:
        metrics = metrics_of(replaced, world)
    except _NeedsMoreError as error:
        why = str(error)
    else:
        _add_all(difference, found)
        return metrics, []
    _add_all(difference, found)
    difference.same = difference.counted = 0

    def shadow(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        inputs = observed.form.taken(parts.model, args, kwargs)
        if inputs is not None:
            found.put(_difference(observed.form.call(parts.model.forward, inputs), answered(runtime, inputs)))

    handle = parts.model.register_forward_hook(shadow, with_kwargs=True)
    try:
        metrics_of(parts, world)
    finally:
        handle.remove()
    if not _add_all(difference, found):
        raise ConfigError(
            "In its evaluation the task never calls the model as it did for the first samples, so nothing can be compared"
        )
    asks = "the labels" if observed.form.without_labels else why
    return {}, [
        f"The task's metrics need {asks}, which the exported model has not: each of its answers in the evaluation was "
        f"compared instead, and `{AGREEMENT}` is the share of largest entries that are the same"
    ]


def _difference(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, NDArray[Any]]) -> Difference:
    found = Difference()
    found.take(ours, theirs)
    return found


def _add_all(difference: Difference, found: "SimpleQueue[Difference]") -> int:
    """Returns how many there were."""
    count = found.qsize()
    for _ in range(count):
        difference.add(found.get())
    return count


def _check_outputs(difference: Difference, tolerance: float, where: str) -> None:
    for name, gap in difference.gaps.items():
        if not gap.relative <= tolerance:
            raise ParityMissed(
                f"The outputs of the exported model differ from the trained one's by {gap.relative:.3g} of the largest "
                f"{name} {where}, and the tolerance is {tolerance:g}. Nothing was kept; what was exported before is as it "
                "was"
            )


def _check_metric(name: str, trained: float | None, exported: float | None, tolerance: float) -> None:
    if trained is None or exported is None or (math.isnan(trained) and math.isnan(exported)):
        return
    if not abs(trained - exported) <= tolerance * max(1.0, abs(trained)):
        raise ParityMissed(
            f"{name} of the exported model is {exported:.6g}, and of the trained one {trained:.6g}; the tolerance is "
            f"{tolerance:g}. Nothing was kept; what was exported before is as it was"
        )


def _main(parts: TrainedParts, names: list[str]) -> str:
    """The metric that the run's best is told by, else the first that is no loss, else the first."""
    best = parts.config.checkpoint.best_metric
    wanted = [name for name in names if best not in (None, "loss") and (name == best or name.partition("/")[2] == best)]
    others = [name for name in names if not name.endswith("loss")]
    return (wanted or others or names)[0]
