"""A fully connected network."""

from itertools import pairwise

import torch
from torch import nn


class MLP(nn.Module):
    """Linear layers with ReLU and dropout between them; a sample is flattened to `inputs` numbers first."""

    def __init__(self, inputs: int, hidden: list[int], classes: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, following in pairwise([inputs, *hidden]):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout) if dropout else nn.Identity()]
        self.layers = nn.Sequential(*layers, nn.Linear([inputs, *hidden][-1], classes))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples (b, …) of `inputs` numbers each to logits (b, classes)."""
        logits: torch.Tensor = self.layers(samples.flatten(1))
        return logits
