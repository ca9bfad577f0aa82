"""Scaled dot-product attention with several heads (Vaswani et al. 2017, "Attention Is All You Need", section 3.2)."""

import torch
from torch import nn
from torch.nn import functional as F


class KeyValues:
    """Keys and values (b, heads, s, d) of the tokens that one attention has met, for generation token by token.

    Holds up to `most` tokens, in memory that the first ones fix the batch, type and device of.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.length = 0
        self._held: tuple[torch.Tensor, torch.Tensor] | None = None

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep those of further tokens, and return those of all (b, heads, length, d). Raises ValueError if full."""
        start, self.length = self.length, self.length + keys.shape[2]
        if self.length > self._most:
            raise ValueError(f"{self.length} tokens are more than the {self._most} that there is room for")
        if self._held is None:
            batch, heads, _, size = keys.shape
            self._held = (
                keys.new_empty(batch, heads, self._most, size),
                values.new_empty(batch, heads, self._most, size),
            )
        for held, new in zip(self._held, (keys, values), strict=True):
            held[:, :, start : self.length] = new
        return self._held[0][:, :, : self.length], self._held[1][:, :, : self.length]

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows (b,) of the batch, as a beam search does: each may come several times, or not at all."""
        for held in self._held or ():
            held[:, :, : self.length] = held[rows, :, : self.length]


class SelfAttention(nn.Module):
    """Each token looks at all of its sequence, or, `causal`, at itself and those before it. Dropout is on the weights."""

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool) -> None:
        super().__init__()
        check_heads(width, heads)
        self._heads, self._dropout, self._causal = heads, dropout, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, keep: torch.Tensor | None = None, cache: KeyValues | None = None
    ) -> torch.Tensor:
        """(b, t, width) to the same. `keep` (b, t), bool, is False for padding, which no token looks at.

        With a `cache`, x are the tokens after those that it holds, which are looked at, too.
        """
        queries, keys, values = (split_heads(part, self._heads) for part in self.qkv(x).chunk(3, dim=-1))
        if cache is not None:
            keys, values = cache.append(keys, values)
        dropout = self._dropout if self.training else 0.0
        seen = attend(queries, keys, values, keep=keep, causal=self._causal, dropout=dropout)
        answer: torch.Tensor = self.out(join_heads(seen))
        return answer

    @torch.no_grad()
    def weights(self, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """What forward weighs values with, (b, heads, t, t), to be shown: without dropout, rows add up to 1."""
        queries, keys, _ = (split_heads(part, self._heads) for part in self.qkv(x).chunk(3, dim=-1))
        return attention_weights(queries, keys, keep=keep, causal=self._causal)


class CrossAttention(nn.Module):
    """Each token looks at all of another sequence, such as a decoder's at the encoder's answer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        check_heads(width, heads)
        self._heads, self._dropout = heads, dropout
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        keep: torch.Tensor | None = None,
        cache: KeyValues | None = None,
    ) -> torch.Tensor:
        """(b, t, width) and the other sequence (b, s, width) to (b, t, width); `keep` (b, s) is False for its padding.

        A `cache` that holds anything takes the place of `memory`: the other sequence stays as it is.
        """
        queries = split_heads(self.q(x), self._heads)
        if cache is not None and cache.length:
            keys, values = cache.append(queries[:, :, :0], queries[:, :, :0])
        else:
            keys, values = (split_heads(part, self._heads) for part in self.kv(memory).chunk(2, dim=-1))
            if cache is not None:
                keys, values = cache.append(keys, values)
        dropout = self._dropout if self.training else 0.0
        seen = attend(queries, keys, values, keep=keep, causal=False, dropout=dropout)
        answer: torch.Tensor = self.out(join_heads(seen))
        return answer

    @torch.no_grad()
    def weights(self, x: torch.Tensor, memory: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        """What forward weighs values with, (b, heads, t, s), to be shown: without dropout, rows add up to 1."""
        keys, _ = (split_heads(part, self._heads) for part in self.kv(memory).chunk(2, dim=-1))
        return attention_weights(split_heads(self.q(x), self._heads), keys, keep=keep, causal=False)


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    keep: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    """Queries (b, heads, t, d), keys and values (b, heads, s, d) to (b, heads, t, d).

    `causal` queries are the last t of the s tokens. A query that is left nothing to look at gets zeros.
    """
    whole = queries.shape[2] == keys.shape[2]
    if keep is None and (not causal or whole or queries.shape[2] == 1):  # the kernels that need no mask in memory
        return F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=causal and whole)
    mask = _mask(queries, keys, keep, causal)
    answer = F.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=dropout)
    return answer if keep is None else answer.masked_fill(~mask.any(-1, keepdim=True), 0.0)


def attention_weights(
    queries: torch.Tensor, keys: torch.Tensor, *, keep: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    """The weights (b, heads, t, s) of `attend`."""
    scores = queries.float() @ keys.float().transpose(-1, -2) / queries.shape[-1] ** 0.5
    mask = _mask(queries, keys, keep, causal)
    weights: torch.Tensor = scores.masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~mask, 0.0)
    return weights


def _mask(queries: torch.Tensor, keys: torch.Tensor, keep: torch.Tensor | None, causal: bool) -> torch.Tensor:
    """Which keys a query sees, in a shape that broadcasts to (b, heads, t, s)."""
    t, s = queries.shape[2], keys.shape[2]
    mask = torch.ones(1, 1, t, s, dtype=torch.bool, device=queries.device)
    if causal:
        mask = mask.tril(s - t)
    return mask if keep is None else mask & keep[:, None, None, :]


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(b, t, width) to (b, heads, t, width / heads)."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """(b, heads, t, d) to (b, t, heads * d)."""
    return x.transpose(1, 2).flatten(-2)


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError where heads do not divide a width."""
    if heads < 1 or width % heads:
        raise ValueError(f"width={width} is not divided by heads={heads}. Type a width that is a multiple of heads")
