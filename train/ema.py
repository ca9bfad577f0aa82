"""An exponential moving average of the weights, kept beside the model."""

import copy

import torch
from torch import nn


class Average:
    """`model` is a copy whose weights follow: average += (1 - d) (weight - average).

    d is min(decay, (1 + applied) / (10 + applied)), so that the average forgets the random start at once. A skipped
    step does not move it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._decay = decay
        self._source = model

    @torch.no_grad()
    def follow(self, applied: torch.Tensor, skipped: torch.Tensor) -> None:
        """Take in the weights after the `applied`-th applied step (device scalars)."""
        decay = torch.clamp((1 + applied) / (10 + applied), max=self._decay)
        weight = torch.where(skipped.bool(), torch.zeros_like(decay), 1 - decay)
        averages: list[torch.Tensor] = list(self.model.parameters())
        moves = list(torch._foreach_sub(list[torch.Tensor](self._source.parameters()), averages))
        torch._foreach_mul_(moves, weight.to(averages[0].dtype))
        torch._foreach_add_(averages, moves)

    def evaluated(self) -> nn.Module:
        """The averaged model, with the model's current buffers, such as BatchNorm's statistics."""
        for average, current in zip(self.model.buffers(), self._source.buffers(), strict=True):
            average.copy_(current)
        return self.model
