"""Bring batches to the rank's device, on a GPU while the step before still computes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from .batch import apply
from .loader import Work


class Mover:
    """Moves batches to `device`, numbers of each dtype as what `kept` says."""

    def __init__(self, device: torch.device, kept: Callable[[torch.dtype], torch.dtype]) -> None:
        self._device = device
        self._kept = kept

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device, self._kept(tensor.dtype), non_blocking=True)


def on_device(works: Iterator[Work], mover: Mover, device: torch.device) -> Iterator[Work]:
    """The same work, its batches on `device`. On a GPU one step ahead, copied from pinned memory on a side stream."""
    if device.type != "cuda":
        for work in works:
            yield _changed(work, mover)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead = _copied(works, mover, stream)
    while ahead is not None:
        ready, copied = ahead
        torch.cuda.current_stream(device).wait_event(copied)
        _keep_until_used(ready, device)
        yield ready
        # The caller has queued the step's kernels by now, so the next copy runs beside them.
        ahead = _copied(works, mover, stream)


def _changed(work: Work, mover: Mover) -> Work:
    return replace(work, pieces=[(position, apply(batch, mover)) for position, batch in work.pieces])


def _copied(works: Iterator[Work], mover: Mover, stream: torch.cuda.Stream) -> tuple[Work, torch.cuda.Event] | None:
    work = next(works, None)
    if work is None:
        return None
    pinned = replace(work, pieces=[(position, apply(batch, _pin)) for position, batch in work.pieces])
    with torch.cuda.stream(stream):
        moved = _changed(pinned, mover)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(stream)
    return moved, copied


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_cuda or tensor.is_pinned() else tensor.pin_memory()


def _keep_until_used(work: Work, device: torch.device) -> None:
    """The side stream's allocator must not hand the memory out again before the main stream is done with it."""

    def record(tensor: torch.Tensor) -> torch.Tensor:
        tensor.record_stream(torch.cuda.current_stream(device))
        return tensor

    for _, batch in work.pieces:
        apply(batch, record)
