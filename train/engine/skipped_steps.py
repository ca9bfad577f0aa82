"""Whether a step was skipped, told some steps later, when the device has long been done with it: nobody waits for it."""

import torch

from .step import StepResult

STRIDE = 8  # steps from one look to the next, which the host may be ahead of the device


class SkipPoll:
    """Looks at a step every `STRIDE` steps. All ranks hear the same, as the skip of a step is that of all."""

    def __init__(self) -> None:
        self._skipped: torch.Tensor | None = None  # of the step looked at last, on its way to the host
        self._there: torch.cuda.Event | None = None

    def at(self, result: StepResult) -> bool:
        """Look at this step; returns whether the one looked at before it was skipped."""
        before, there = self._skipped, self._there
        self._skipped = result.skipped.to("cpu", non_blocking=True)
        if result.skipped.is_cuda:
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record()
        if there is not None:
            there.synchronize()
        return before is not None and bool(before > 0)
