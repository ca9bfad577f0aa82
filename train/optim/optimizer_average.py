"""The average of optimizers that keep one themselves, such as schedule-free ones: eval() puts it into the weights."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch

from .ema import Average, copy_each


@final
class OptimizerAverage(Average):
    """Nothing to update or to load: it is in the optimizers' state and the trained weights."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], parameters: Iterable[torch.Tensor]) -> None:
        """`optimizers` have modes: train() and eval()."""
        super().__init__((), 1.0)
        self._optimizers = optimizers
        self._trained: list[torch.Tensor] = list(parameters)

    def update(self, applied: torch.Tensor, skipped: torch.Tensor) -> None:
        pass

    def take(self) -> None:
        pass

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within it, the model holds the average. Afterwards the bits are as before, which train() alone rounds."""
        own = [parameter.detach().clone() for parameter in self._trained]
        for optimizer in self._optimizers:
            optimizer.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for optimizer in self._optimizers:
                optimizer.train()  # type: ignore[attr-defined]
            copy_each(self._trained, own)
