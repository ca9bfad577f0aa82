"""Poll the device for skipped steps some steps later, so that the host does not wait for it."""

import torch

from ..step import StepResult

STRIDE = 8  # steps between two polls; the host may be so many steps ahead of the device


class SkipPoll:
    """Polls a step every `STRIDE` steps. The answer is the same on all ranks, since all skip the same steps."""

    def __init__(self) -> None:
        self._skipped: torch.Tensor | None = None  # of the step polled last, being copied to the host
        self._there: torch.cuda.Event | None = None

    def at(self, result: StepResult) -> bool:
        """Start to copy the flag of this step; returns whether the one polled before was skipped."""
        before, there = self._skipped, self._there
        self._skipped = result.skipped.to("cpu", non_blocking=True)
        if result.skipped.is_cuda:
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record()
        if there is not None:
            there.synchronize()
        return before is not None and bool(before > 0)
