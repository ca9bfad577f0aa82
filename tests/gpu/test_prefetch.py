"""Batches come over on a stream of their own, beside the step before."""

from collections.abc import Callable, Iterator

import pytest
import torch

from phalanx.train.loading.loader import StepBatch
from phalanx.train.loading.prefetch import ToDevice, prefetch_to_device
from tests.train.built_parts import built, moved

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("switches")]

_MIB = 2**20


def test_the_side_stream_brings_the_same_batches_in_the_same_order(device: torch.device) -> None:
    """While the main stream is kept busy, and every batch is overwritten after its use."""
    _, _, parts = built(["experiment=digits", "train.micro_batch=16", "world.device=cuda"])
    direct = [moved(work, parts.mover) for work, _ in zip(parts.loader.from_step(0), range(20), strict=False)]
    seen: list[tuple[int, int, torch.Tensor, torch.Tensor]] = []
    for work in prefetch_to_device(parts.loader.from_step(0), parts.mover, device):
        sleep(2_000_000)
        for position, (images, labels) in work.micro_batches:
            seen.append((work.step, position, images.clone(), labels.clone()))
            images.fill_(float("nan"))
        del images, labels
        if work.step == 19:
            break
    torch.cuda.synchronize(device)
    expected = [(work.step, position, *batch) for work in direct for position, batch in work.micro_batches]
    assert [(step, position) for step, position, _, _ in seen] == [
        (step, position) for step, position, _, _ in expected
    ]
    for (_, _, images, labels), (_, _, wanted, targets) in zip(seen, expected, strict=True):
        assert torch.equal(images, wanted)
        assert torch.equal(labels, targets)


def milliseconds(act: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Time on the main stream of what `act` does there, or makes it wait for; the best of three."""

    def once() -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before()
        torch.cuda.synchronize()
        begin.record()
        act()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end))

    return min(once() for _ in range(3))


def sleep(cycles: int) -> None:
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def test_a_copy_runs_beside_the_computation(device: torch.device) -> None:
    """256 MiB take many milliseconds over any bus; a step of three times that must hide them."""
    big = torch.empty(256 * _MIB, dtype=torch.uint8).pin_memory()
    mover = ToDevice(device, lambda dtype: dtype)
    copy_ms = milliseconds(lambda: mover(big))
    cycles = int(3 * copy_ms / milliseconds(lambda: sleep(10_000_000)) * 10_000_000)
    step_ms = milliseconds(lambda: sleep(cycles))
    works: Iterator[StepBatch] = iter(())

    def earlier_batches() -> None:
        """The side stream finds the memory of the last but one: allocating new memory might wait for the sleep."""
        nonlocal works
        works = prefetch_to_device(
            iter([StepBatch(step, 1, [(step, big)], most=1) for step in range(4)]), mover, device
        )
        for _ in range(3):
            next(works)

    def step_and_next_batch() -> None:
        sleep(cycles)
        next(works)

    both_ms = milliseconds(step_and_next_batch, before=earlier_batches)
    assert both_ms < step_ms + 0.5 * copy_ms, (both_ms, step_ms, copy_ms)
