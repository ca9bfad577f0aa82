"""Copy batches to the rank's device, on a GPU one step ahead on a side stream."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from .batch import apply
from .loader import StepBatch


class ToDevice:
    """Moves tensors to `device`; `kept` maps each dtype to the one it is converted to."""

    def __init__(self, device: torch.device, kept: Callable[[torch.dtype], torch.dtype]) -> None:
        self._device = device
        self._kept = kept

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, self._kept(tensor.dtype), non_blocking=True)

    def other(self, held: Any) -> Any:
        """Whatever else a batch holds: moved by its own method `to`, as batches of graphs and lists of images have."""
        return held.to(self._device) if callable(getattr(held, "to", None)) else held


def prefetch_to_device(step_batches: Iterator[StepBatch], mover: ToDevice, device: torch.device) -> Iterator[StepBatch]:
    """The same step_batch, its batches on `device`. On a GPU one step ahead, copied from pinned memory on a side stream."""
    if device.type != "cuda":
        for step_batch in step_batches:
            yield _changed(step_batch, mover)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead = _copied(step_batches, mover, stream)
    while ahead is not None:
        ready, copied = ahead
        torch.cuda.current_stream(device).wait_event(copied)
        _keep_until_used(ready, device)
        yield ready
        # The caller has queued the step's kernels by now, so the next copy runs beside them.
        ahead = _copied(step_batches, mover, stream)


def _changed(step_batch: StepBatch, mover: ToDevice) -> StepBatch:
    return replace(
        step_batch, micro_batches=[(position, apply(batch, mover)) for position, batch in step_batch.micro_batches]
    )


def _copied(
    step_batches: Iterator[StepBatch], mover: ToDevice, stream: torch.cuda.Stream
) -> tuple[StepBatch, torch.cuda.Event] | None:
    step_batch = next(step_batches, None)
    if step_batch is None:
        return None
    pinned = replace(
        step_batch, micro_batches=[(position, apply(batch, _pin)) for position, batch in step_batch.micro_batches]
    )
    with torch.cuda.stream(stream):
        moved = _changed(pinned, mover)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(stream)
    return moved, copied


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided or tensor.is_cuda or tensor.is_pinned():
        return tensor
    return tensor.pin_memory()


def _keep_until_used(step_batch: StepBatch, device: torch.device) -> None:
    """The side stream's allocator must not hand the memory out again before the main stream is done with it."""

    def record(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_cuda:  # a packed sequence's sizes
            return tensor
        tensor.record_stream(torch.cuda.current_stream(device))
        return tensor

    for _, batch in step_batch.micro_batches:
        apply(batch, record)
