"""The average of an optimizer that keeps one itself, such as schedule-free ones: its eval() puts it into the weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import final

import torch

from .ema import Average, copy_each


@final
class OptimizerAverage(Average):
    """Nothing to update or to load: it is in the optimizer's state and the trained weights."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor]) -> None:
        """`optimizer` has modes: train() and eval()."""
        super().__init__((), 1.0)
        self._optimizer = optimizer
        self._trained: list[torch.Tensor] = list(parameters)

    def update(self, applied: torch.Tensor, skipped: torch.Tensor) -> None:
        pass

    def take(self) -> None:
        pass

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within it, the model holds the average. Afterwards the bits are as before, which train() alone rounds."""
        own = [parameter.detach().clone() for parameter in self._trained]
        self._optimizer.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self._optimizer.train()  # type: ignore[attr-defined]
            copy_each(self._trained, own)
