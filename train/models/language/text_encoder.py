"""An encoder of texts for classes: a transformer whose answers are averaged."""

import torch
from torch import nn

from .blocks import Block


class TextEncoder(nn.Module):
    """Tokens (b, t) to logits (b, classes): embeddings with learnt positions, blocks, the mean over tokens, a linear layer.

    The blocks are normalised before each part (Xiong et al. 2020). `padding` is the token that fills a batch up, which
    nothing looks at and no mean has; of a text longer than `longest` the first tokens are taken.
    """

    def __init__(
        self,
        classes: int,
        vocabulary: int,
        width: int,
        heads: int,
        layers: int,
        hidden: int,
        longest: int,
        dropout: float,
        padding: int,
    ) -> None:
        super().__init__()
        self._padding, self._longest = padding, longest
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout, causal=False) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, classes)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Tokens (b, t) of int64, padded at their ends, to logits (b, classes)."""
        text = text[:, : self._longest]
        keep = text != self._padding
        x = self.dropout(self.embedding(text) + self.positions.weight[: text.shape[1]])
        for block in self.blocks:
            x = block(x, keep)
        there = keep.unsqueeze(2).to(x.dtype)
        mean = (self.norm(x) * there).sum(1) / there.sum(1).clamp(min=1)
        logits: torch.Tensor = self.out(self.dropout(mean))
        return logits
