"""An encoder-decoder transformer (Vaswani et al. 2017), normalised before each part (Xiong et al. 2020)."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .attention import KeyValues
from .blocks import Block, DecoderBlock


@dataclass
class Decoding:
    """What a decoder keeps between tokens: the source (b, s), the encoder's answer to it, and each block's caches."""

    source: torch.Tensor
    memory: torch.Tensor  # (b, s, width)
    keep: torch.Tensor  # (b, s)
    caches: list[tuple[KeyValues, KeyValues]]

    def widen(self, times: int) -> None:
        """Go on with each row several times, one after the other. Before the first token."""
        self.source, self.memory, self.keep = (
            rows.repeat_interleave(times, 0) for rows in (self.source, self.memory, self.keep)
        )

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows (b,), each in the place of one of the same source."""
        for tokens, _ in self.caches:
            tokens.select(rows)


class EncoderDecoder(nn.Module):
    """Tokens of one language to those of another, out of one vocabulary, whose embedding is also the last layer (tied).

    `padding` is the token that fills a batch up; `longest` the most tokens of a sequence, either side. Positions are
    sinusoids (section 3.5 there). With `copies` the next token may also be one of the source, as the decoder weighs these
    (See, Liu & Manning 2017, "Get To The Point", section 2.2): names that a translation keeps need not be learnt.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int,
        heads: int,
        layers: int,
        hidden: int,
        longest: int,
        dropout: float,
        copies: bool,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self._padding, self._width = padding, width
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)  # with which logits begin near unit variance
        self.register_buffer("positions", sinusoids(longest, width), persistent=False)
        self.encoder = nn.ModuleList(Block(width, heads, hidden, dropout, causal=False) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderBlock(width, heads, hidden, dropout) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.copy = Copying(width) if copies else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Source (b, s) and target so far (b, t), padded at their ends, to logits (b, t, vocabulary) of what follows."""
        memory, keep = self.encode(source)
        x = self._embedded(target, 0)
        for block in self.decoder:
            x = block(x, memory, keep)
        return self._logits(x, source, memory, keep)

    def encode(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's answer (b, s, width), and which of it is no padding (b, s)."""
        keep = source != self._padding
        x = self._embedded(source, 0)
        for block in self.encoder:
            x = block(x, keep)
        return self.encoder_norm(x), keep

    def start(self, source: torch.Tensor, most: int) -> Decoding:
        """Encode, to decode up to `most` tokens one by one with `next_logits`. Raises ValueError for too many."""
        self._check_length(most - 1, "translations of as many as task.longest")  # the last one is not read again
        memory, keep = self.encode(source)
        caches = [(KeyValues(most), KeyValues(memory.shape[1])) for _ in self.decoder]
        return Decoding(source, memory, keep, caches)

    def next_logits(self, tokens: torch.Tensor, decoding: Decoding) -> torch.Tensor:
        """The token (b,) that comes next in each row to the logits (b, vocabulary) of the one after it."""
        x = self._embedded(tokens.unsqueeze(1), decoding.caches[0][0].length)
        for block, cache in zip(self.decoder, decoding.caches, strict=True):
            x = block(x, decoding.memory, decoding.keep, cache)
        return self._logits(x, decoding.source, decoding.memory, decoding.keep)[:, 0]

    @torch.no_grad()
    def alignment(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """How the last block's tokens of the target weigh those of the source, the mean over its heads: (b, t, s)."""
        memory, keep = self.encode(source)
        x = self._embedded(target, 0)
        for block in self.decoder[:-1]:
            x = block(x, memory, keep)
        last: DecoderBlock = self.decoder[-1]  # type: ignore[assignment]
        x = x + last.attention(last.norm1(x))
        weights: torch.Tensor = last.cross_attention.weights(last.norm2(x), memory, keep).mean(1)
        return weights

    def _embedded(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        self._check_length(start + tokens.shape[1], "sequences, begin and end among them")
        positions: torch.Tensor = self.positions[start : start + tokens.shape[1]]  # type: ignore[index]
        x: torch.Tensor = self.dropout(self.embedding(tokens) * math.sqrt(self._width) + positions)
        return x

    def _check_length(self, tokens: int, what: str) -> None:
        longest = len(self.positions)  # type: ignore[arg-type]
        if tokens > longest:
            raise ValueError(
                f"{tokens} tokens ({what}) are more than model.longest={longest}, for which there are positions. Type "
                f"model.longest={tokens}, or a smaller longest of data and task"
            )

    def _logits(self, x: torch.Tensor, source: torch.Tensor, memory: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        x = self.decoder_norm(x)
        logits: torch.Tensor = F.linear(x, self.embedding.weight)
        if self.copy is not None:
            logits = self.copy(x, logits, source, memory, keep)
        return logits


class Copying(nn.Module):
    """Mixes what a decoder would write with the tokens of the source, by a gate of each token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.gate = nn.Linear(width, 1)

    def forward(
        self, x: torch.Tensor, logits: torch.Tensor, source: torch.Tensor, memory: torch.Tensor, keep: torch.Tensor
    ) -> torch.Tensor:
        """Answers x (b, t, width) of a decoder with logits (b, t, vocabulary) to logarithms of probabilities."""
        scores = self.query(x) @ self.key(memory).transpose(1, 2) / x.shape[2] ** 0.5
        weights = scores.masked_fill(~keep.unsqueeze(1), torch.finfo(scores.dtype).min).softmax(2)
        gate = self.gate(x).sigmoid()
        written = logits.softmax(2) * (1 - gate)
        mixed: torch.Tensor = written.scatter_add(
            2, source.unsqueeze(1).expand_as(weights), (weights * gate).to(written.dtype)
        )
        return mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log()


def sinusoids(longest: int, width: int) -> torch.Tensor:
    """Sines and cosines of the position (longest, width), with wavelengths from 2 pi to 10000 * 2 pi."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(longest).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
