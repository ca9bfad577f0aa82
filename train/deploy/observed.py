"""What is seen of a trained model before it is exported: how the task calls it, with which shapes, and its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import torch

from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ..checkpoint.preserve import unchanged
from ..distributed.world import World
from ..evaluation.evaluate import Evaluation
from ..loading.batch import Batch, apply
from ..loading.shard import Span
from ..tasks.phases import ratios_of
from .call_form import LABELS, Call, CallForm, bound, dims_of, form_of, recorded
from .evaluate import metrics_of
from .parts import TrainedParts

_SIZES = (2, 3, 5, 1, 7)  # samples of the batches that are tried
Shapes = dict[str, torch.Tensor]  # tensors of no memory: of inputs and outputs


@dataclass(frozen=True)
class Observed:
    """`calls` are of batches of `sizes` samples. `metrics` by split are those of the trained model."""

    form: CallForm
    calls: Sequence[Call]
    sizes: Sequence[int]
    metrics: Mapping[str, Mapping[str, Any]]
    largest: Mapping[str, int]  # of each dimension that varies the largest that was seen


def observe(parts: TrainedParts, world: World) -> Observed:
    """Evaluate the trained model, and try it on small batches. Raises ConfigError where its calls have no one form."""
    first = next(iter(parts.evaluations.values()))
    sizes = [size for size in _SIZES if size <= first.samples]
    if len(sizes) < 2:
        raise ConfigError(f"{first.key} has one sample, and a batch of two tells which dimension counts samples")
    calls = [call_on(parts, fetched(first, Span(0, size)), f"{first.key}") for size in sizes]
    calls, dropped = without_labels(parts, calls)
    form = form_of(calls[0], without_labels=dropped)
    # An evaluation puts back whatever the model references, its hooks included: what is to stay goes into a queue.
    later = SimpleQueue[Shapes]()

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        inputs = form.taken(parts.model, args, kwargs)
        outputs = Call(*bound(parts.model, args, kwargs), answer).outputs()
        if inputs is None or not outputs.keys() >= form.outputs.keys():
            return
        later.put(_shapes(inputs, {name: outputs[name] for name in form.outputs}))

    handle = parts.model.register_forward_hook(look, with_kwargs=True)
    try:
        metrics = metrics_of(parts, world)
    finally:
        handle.remove()
    seen = [_shapes(call.inputs(), call.outputs()) for call in calls]
    known = {_key(shapes): shapes for shapes in (later.get() for _ in range(later.qsize()))}
    seen += known.values()
    dims = dims_of(seen, sizes)
    form = replace(
        form,
        shapes={name: dims[f"<{name}"] for name in form.inputs},
        answers={name: dims[f">{name}"] for name in form.outputs},
    )
    largest: dict[str, int] = {}
    for shapes in seen:
        for name, tensor in shapes.items():
            for dim, size in zip(dims[name], tensor.shape, strict=True):
                if isinstance(dim, str):
                    largest[dim] = max(largest.get(dim, 0), size)
    return Observed(form, calls, sizes, metrics, largest)


def fetched(evaluation: Evaluation, span: Span) -> Batch:
    """The batch of these samples, as it comes from the data set. Raises ConfigError where a collate leaves nothing."""
    with user_error.context(set=evaluation.key):
        batch = next(iter(replace(evaluation.fetcher, workers=0).batches([span])))
    if batch is None:
        raise ConfigError(f"data.collate left nothing of the first {span.stop} samples of {evaluation.key}")
    return batch


def call_on(parts: TrainedParts, batch: Batch, key: str) -> Call:
    """The task's first call of the model for this batch. Raises ConfigError where it makes none."""
    model, task = parts.model, parts.task
    with unchanged(model, task), recorded(model, 1) as calls, torch.no_grad():
        model.eval()
        with user_error.context(set=key):
            ratios_of(task, model, apply(batch, parts.mover))
    if not calls:
        raise ConfigError(
            f"{type(task).__name__} reads parts of the model and never calls it: model(…), so there is no forward to "
            "export. Give the model a forward that does what a prediction needs, and call that"
        )
    return calls[0]


def without_labels(parts: TrainedParts, calls: Sequence[Call]) -> tuple[list[Call], bool]:
    """The calls without an argument `labels`, where the model answers without it, too: nobody has one at prediction."""
    if not all(LABELS in call.keywords for call in calls):
        return list(calls), False
    model, found = parts.model, list[Call]()
    with unchanged(model), torch.no_grad():
        model.eval()
        for call in calls:
            keywords = {name: value for name, value in call.keywords.items() if name != LABELS}
            try:
                answer = model(*call.positional, **keywords)
            except Exception:  # whatever the user's own code raises that needs them
                return list(calls), False
            found.append(Call(call.positional, keywords, answer))
    return (found, True) if all(call.outputs() for call in found) else (list(calls), False)


def _shapes(inputs: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]) -> Shapes:
    named = {**{f"<{name}": tensor for name, tensor in inputs.items()}, **{f">{n}": t for n, t in outputs.items()}}
    return {name: torch.empty(tensor.shape, device="meta") for name, tensor in named.items()}


def _key(shapes: Shapes) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in shapes.values())
