"""GPT-2's transformer: a decoder without an encoder, in any size.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the layout of its published code and weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...ops.add_layer_norm import add_layer_norm
from .attention import KeyValues, SelfAttention
from .blocks import FeedForward
from .gpt2_weights import from_hugging_face

_EPS = 1e-5
_STD, _POSITION_STD = 0.02, 0.01  # of GPT-2's initial weights


class AddNorm(nn.LayerNorm):
    """The residual stream plus the branch that is due to it, and that sum normalised: what the next layer reads."""

    def __init__(self, width: int, fused: bool) -> None:
        super().__init__(width, _EPS)
        self._fused = fused

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, branch: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, t, width) twice to the same; without a branch x is normalised alone."""
        if branch is not None and self._fused:
            return add_layer_norm(x, branch, self.weight, self.bias, self.eps)
        total = x if branch is None else x + branch
        return total, super().forward(total)


class GPTBlock(nn.Module):
    """Attention and feed-forward. What the latter adds to the stream is handed to the next block, which normalises it."""

    def __init__(self, width: int, heads: int, dropout: float, fused: bool) -> None:
        super().__init__()
        self.norm1 = AddNorm(width, fused)
        self.attention = SelfAttention(width, heads, dropout, causal=True)
        self.norm2 = AddNorm(width, fused)
        self.feed_forward = FeedForward(width, 4 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, branch: torch.Tensor | None, cache: KeyValues | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The stream (b, t, width), and what is to be added to it, to those behind this block."""
        x, normed = self.norm1(x, branch)
        x, normed = self.norm2(x, self.dropout(self.attention(normed, None, cache)))
        return x, self.dropout(self.feed_forward(normed))


class GPT(nn.Module):
    """Tokens (b, t) to the logits (b, t, vocabulary) of those that follow.

    Vocabulary 50257, length 1024, width 768, 12 heads and 12 layers are GPT-2's smallest: 124,439,808 parameters. The
    embedding of tokens is the matrix of the logits, too. Weights are drawn as GPT-2's: with a deviation of 0.02, those of
    positions 0.01, and those of the matrices that write into the residual stream 0.02 / sqrt(2 * layers).

    `fused` adds and normalises by the operator phalanx::add_layer_norm, one kernel on a GPU; on a CPU with the same bits.
    """

    def __init__(
        self, vocabulary: int, length: int, width: int, heads: int, layers: int, dropout: float, fused: bool
    ) -> None:
        super().__init__()
        if min(vocabulary, length, width, heads, layers) < 1:
            raise ValueError("vocabulary, length, width, heads and layers are at least 1")
        self.length = length
        self.vocabulary = vocabulary
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(GPTBlock(width, heads, dropout, fused) for _ in range(layers))
        self.norm = AddNorm(width, fused)
        self._draw(layers)

    def forward(self, tokens: torch.Tensor, caches: Sequence[KeyValues] | None = None) -> torch.Tensor:
        """With `caches`, one a block, the tokens are those after what these hold. Raises ValueError for too many."""
        x, branch = self._embedded(tokens, caches[0].length if caches else 0), None
        for index, block in enumerate(self.blocks):
            x, branch = block(x, branch, caches[index] if caches else None)
        return F.linear(self.norm(x, branch)[1], self.tokens.weight)

    @torch.no_grad()
    def generate(
        self,
        tokens: torch.Tensor,
        new: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """`tokens` (b, t) and the `new` ones drawn after them, (b, t + new); temperature 0 takes the likeliest.

        `top_k` draws among the k likeliest. Keys and values of what was read are kept, and of more than `length` tokens the
        newer half of them is read again. Call it in eval mode.
        """
        if tokens.shape[1] < 1 or temperature < 0 or (top_k is not None and top_k < 1):
            raise ValueError("generate wants a token to begin with, temperature >= 0 and top_k >= 1")
        unread, caches = tokens[:, -self.length :], self._caches()
        for _ in range(new):
            if caches[0].length + unread.shape[1] > self.length:
                unread, caches = tokens[:, -max(1, self.length // 2) :], self._caches()
            unread = drawn(self(unread, caches)[:, -1], temperature, top_k, generator)
            tokens = torch.cat([tokens, unread], 1)
        return tokens

    @torch.no_grad()
    def attention_maps(self, tokens: torch.Tensor) -> torch.Tensor:
        """What each token (b, t) looks at, (layers, b, heads, t, t), to be shown. Call it in eval mode."""
        x, branch, found = self._embedded(tokens, 0), None, []
        for block in self.blocks:
            assert isinstance(block, GPTBlock)
            found.append(block.attention.weights(block.norm1(x, branch)[1]))
            x, branch = block(x, branch)
        return torch.stack(found)

    @staticmethod
    def translate_weights(entries: Mapping[str, Any]) -> Mapping[str, Any]:
        """The entries of a file that train.init_from names: Hugging Face's GPT-2 under the names of this class."""
        return from_hugging_face(entries)

    def _embedded(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        end = start + tokens.shape[1]
        if end > self.length:
            raise ValueError(
                f"{end} tokens are more than model.length={self.length}, for which there are positions. Type model.length="
                f"{end}, or a smaller length of the data"
            )
        x: torch.Tensor = self.dropout(self.tokens(tokens) + self.positions.weight[start:end])
        return x

    def _caches(self) -> list[KeyValues]:
        return [KeyValues(self.length) for _ in self.blocks]

    @torch.no_grad()
    def _draw(self, layers: int) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(parameter, std=_STD / (2 * layers) ** 0.5)
            elif name == "positions.weight":
                nn.init.normal_(parameter, std=_POSITION_STD)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


def drawn(
    logits: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> torch.Tensor:
    """A token (b, 1) of logits (b, vocabulary)."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)
