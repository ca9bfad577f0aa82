"""An exponential moving average of the weights, kept beside the model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch


@torch.no_grad()
def copy_each(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Copy `sources` into `targets`, one by one: a DTensor, a shard of a parameter, has no torch._foreach_copy_."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


class Average:
    """`weights` follow `parameters`, those of a model as this rank holds them: average += (1 - d) (weight - average).

    d is min(decay, (1 + applied) / (10 + applied)), so that the average forgets the random start at once. A skipped
    step does not move it. Buffers, such as BatchNorm's statistics, are the model's own.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], decay: float) -> None:
        self._source: list[torch.Tensor] = list(parameters)
        self.weights: list[torch.Tensor] = [parameter.detach().clone() for parameter in self._source]
        self._decay = decay

    @torch.no_grad()
    def update(self, applied: torch.Tensor, skipped: torch.Tensor) -> None:
        """Update by the weights after the `applied`-th applied step (device scalars)."""
        decay = torch.clamp((1 + applied) / (10 + applied), max=self._decay)
        weight = torch.where(skipped.bool(), torch.zeros_like(decay), 1 - decay)
        moves = list(torch._foreach_sub(self._source, self.weights))
        torch._foreach_mul_(moves, weight.to(self.weights[0].real.dtype))
        torch._foreach_add_(self.weights, moves)

    def take(self) -> None:
        """Set the average to the model's weights, as after loading it."""
        copy_each(self.weights, self._source)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model holds the average."""
        own = [parameter.detach().clone() for parameter in self._source]
        try:
            copy_each(self._source, self.weights)
            yield
        finally:
            copy_each(self._source, own)
