"""Beam search with a length penalty (Wu et al. 2016, "Google's Neural Machine Translation System", section 7)."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional as F


class Decoder(Protocol):
    """A model that answers token by token, such as `phalanx.models.EncoderDecoder`."""

    def start(self, source: torch.Tensor, most: int) -> Any:
        """What the decoder keeps of the source (b, s), and of up to `most` tokens of an answer.

        Its `widen(n)` takes each row n times, `select(rows)` goes on with these rows, each of the same source as before.
        """
        ...

    def next_logits(self, tokens: torch.Tensor, decoding: Any) -> torch.Tensor:
        """The next token of each row (b,) to the logits of the one after it (b, vocabulary)."""
        ...


@dataclass(frozen=True)
class Beam:
    """`width` hypotheses a sample; the likelihood of one of n tokens is divided by ((5 + n) / 6) ** `length_penalty`."""

    width: int
    length_penalty: float
    begin: int
    end: int

    def __call__(self, model: Decoder, source: torch.Tensor, most: int) -> list[list[int]]:
        """The best hypothesis of each row of source (b, s), without begin and end, of up to `most` tokens."""
        samples, width = len(source), self.width
        rows = torch.arange(samples, device=source.device)
        decoding = model.start(source, most + 1)
        decoding.widen(width)
        tokens = torch.full((samples, width), self.begin, device=source.device)
        likelihood = torch.full((samples, width), -torch.inf, device=source.device)
        likelihood[:, 0] = 0.0  # all begin alike
        written = tokens.new_empty(samples, width, 0)
        done = torch.zeros_like(tokens, dtype=torch.bool)
        lengths = torch.zeros_like(tokens)
        while written.shape[2] < most and not bool(done.all()):
            logits = model.next_logits(tokens.flatten(), decoding)
            further = F.log_softmax(logits.float(), -1).view(samples, width, -1)
            further = self._only_end(further, done)
            total = likelihood.unsqueeze(2) + further  # (b, width, vocabulary)
            scores = total / self._penalty(lengths + ~done).unsqueeze(2)
            best = scores.flatten(1).topk(width, 1).indices
            parents, tokens = best // further.shape[2], best % further.shape[2]
            likelihood = total.flatten(1).gather(1, best)
            done, lengths = done.gather(1, parents), lengths.gather(1, parents)
            lengths = lengths + ~done
            done = done | (tokens == self.end)
            written = written.gather(1, parents.unsqueeze(2).expand(-1, -1, written.shape[2]))
            written = torch.cat([written, tokens.unsqueeze(2)], 2)
            decoding.select((rows.unsqueeze(1) * width + parents).flatten())
        # The first is the best: each step has sorted them by their scores.
        return [self._cut(found) for found in written[:, 0].tolist()]

    def _penalty(self, lengths: torch.Tensor) -> torch.Tensor:
        return ((5 + lengths) / 6.0) ** self.length_penalty

    def _only_end(self, further: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
        """What is done goes on with nothing but its end, at no cost."""
        ended = torch.full_like(further[0, 0], -torch.inf)
        ended[self.end] = 0.0
        return torch.where(done.unsqueeze(2), ended, further)

    def _cut(self, tokens: list[int]) -> list[int]:
        return tokens[: tokens.index(self.end)] if self.end in tokens else tokens
