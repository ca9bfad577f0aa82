"""A small recogniser: convolutions, then a bidirectional GRU."""

import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError


class ConvGRU(nn.Module):
    """Features to logits of tokens a frame: convolutions and a recurrent layer, after Deep Speech 2 (Amodei et al. 2016).

    The first convolution halves the frames. Norms are over channels and frames are masked, so an answer depends neither
    on what else is in a batch nor on padding, and a batch may be split over ranks.
    """

    def __init__(self, mels: int, classes: int, width: int, layers: int, dropout: float) -> None:
        """`classes`: tokens with the blank; `width`: channels, and units of each direction; `layers`: of the GRU."""
        super().__init__()
        self.halve = nn.Conv1d(mels, width, 5, 2, 2)
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, 1, 2)
        self.conv_norm = nn.LayerNorm(width)
        sizes = [width] + [2 * width] * (layers - 1)
        self.onward = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in sizes)
        self.back = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(2 * width) for _ in sizes)
        self.dropout = nn.Dropout(dropout)
        self.tokens = nn.Linear(2 * width, classes)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (b, frames, mels) of which the first `lengths` (b,) count, to logits (b, (frames + 1) // 2, classes),
        and how many of these count.
        """
        if features.shape[2] != self.halve.in_channels:
            found = f"model.mels={self.halve.in_channels}, and the features have {features.shape[2]}"
            raise ConfigError(f"{found}. Type the same for both")
        lengths = (lengths + 1) // 2
        x = F.relu(self.norm(_along_time(self.halve, features)))
        times = torch.arange(x.shape[1], device=x.device)
        there = (times < lengths[:, None])[:, :, None]
        x = x * there
        x = self.dropout(x + F.relu(self.conv_norm(_along_time(self.conv, x))) * there)
        # Two layers of one direction each instead of a bidirectional one over packed sequences, which needs the lengths on
        # the host. Each clip is turned within its own length, so padding comes last both ways.
        turned = (lengths[:, None] - 1 - times).clamp(min=0)[:, :, None]
        for onward, backward, norm in zip(self.onward, self.back, self.norms, strict=True):
            ahead, _ = onward(x)
            back, _ = backward(x.gather(1, turned.expand_as(x)))
            x = self.dropout(norm(torch.cat([ahead, back.gather(1, turned.expand_as(back))], -1)))
        return self.tokens(x), lengths


def _along_time(convolution: nn.Conv1d, x: torch.Tensor) -> torch.Tensor:
    """A convolution over the frames of (b, frames, channels)."""
    found: torch.Tensor = convolution(x.transpose(1, 2)).transpose(1, 2)
    return found
