"""Blocks of transformers: attention and feed-forward, each normalised before (Xiong et al. 2020) and added to its input."""

import torch
from torch import nn
from torch.nn import functional as F

from .attention import CrossAttention, KeyValues, SelfAttention


class FeedForward(nn.Module):
    """Two layers with GELU between them (Hendrycks & Gimpel 2016; by tanh, as GPT-2 computes it)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) to the same."""
        answer: torch.Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return answer


class Block(nn.Module):
    """Self-attention and feed-forward: an encoder's block, or, `causal`, that of a decoder without an encoder."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, keep: torch.Tensor | None = None, cache: KeyValues | None = None
    ) -> torch.Tensor:
        """(b, t, width) to the same; `keep` and `cache` as for SelfAttention."""
        x = x + self.dropout(self.attention(self.norm1(x), keep, cache))
        answer: torch.Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return answer


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the encoder's answer, and feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout, causal=True)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, heads, dropout)
        self.norm3 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        keep: torch.Tensor | None = None,
        cache: tuple[KeyValues, KeyValues] | None = None,
    ) -> torch.Tensor:
        """(b, t, width) and the encoder's answer (b, s, width) to (b, t, width).

        `keep` (b, s) is False for the padding of the encoder's tokens; those of the decoder have theirs at the end, which
        causal attention does not reach. `cache` is that of self-attention and that of attention to the encoder's answer.
        """
        own, others = cache or (None, None)
        x = x + self.dropout(self.attention(self.norm1(x), None, own))
        x = x + self.dropout(self.cross_attention(self.norm2(x), memory, keep, others))
        answer: torch.Tensor = x + self.dropout(self.feed_forward(self.norm3(x)))
        return answer
