"""A small (2+1)-dimensional ConvNet for clips (Tran et al. 2018): convolutions in space and in time take turns."""

import torch
from torch import nn

_GROUPS = 8  # of GroupNorm, which, unlike BatchNorm, gives the same on any number of ranks


class VideoNet(nn.Module):
    """Four blocks of `width`, 2 * `width`, 4 * `width`, 4 * `width` channels, each after the first at half the resolution.

    Time keeps its length in the first two blocks and is halved in the others. With 1 channel, 16 classes and a width of 16
    it has 90,208 parameters.
    """

    def __init__(self, channels: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        if width < _GROUPS or width % _GROUPS:
            raise ValueError(f"width={width} must be a multiple of {_GROUPS}, the groups of its normalisation")
        self.blocks = nn.Sequential(
            _Block(channels, width, (1, 2)),
            _Block(width, 2 * width, (1, 2)),
            _Block(2 * width, 4 * width, (2, 2)),
            _Block(4 * width, 4 * width, (2, 2)),
        )
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classify = nn.Linear(4 * width, classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (b, channels, frames, h, w) to logits (b, classes)."""
        features = self.blocks(clips).mean((2, 3, 4))
        logits: torch.Tensor = self.classify(self.dropout(features))
        return logits


class _Block(nn.Sequential):
    def __init__(self, given: int, width: int, stride: tuple[int, int]) -> None:
        in_time, in_space = stride
        super().__init__(
            nn.Conv3d(given, width, (1, 3, 3), (1, in_space, in_space), (0, 1, 1), bias=False),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv3d(width, width, (3, 1, 1), (in_time, 1, 1), (1, 0, 0), bias=False),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
        )
