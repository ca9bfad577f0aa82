"""Beam search: the likeliest answer where it is wide enough, the greedy one at a width of one."""

import itertools
from dataclasses import dataclass

import pytest
import torch

from phalanx.train.tasks.language.beam_search import Beam

BEGIN, END, VOCABULARY, MOST = 1, 2, 5, 4


@dataclass
class Written:
    """What each row has written so far, and its source."""

    source: torch.Tensor
    tokens: torch.Tensor

    def widen(self, times: int) -> None:
        self.source, self.tokens = (each.repeat_interleave(times, 0) for each in (self.source, self.tokens))

    def select(self, rows: torch.Tensor) -> None:
        self.tokens = self.tokens[rows]


class Chain:
    """Logits that depend on the source and on all that was written: no row may stand in another's place unnoticed."""

    def __init__(self, seed: int) -> None:
        self.table = torch.randn(1000, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2
        self.table[:, 0] = -50.0  # padding

    def start(self, source: torch.Tensor, most: int) -> Written:
        return Written(source, torch.empty(len(source), 0, dtype=torch.int64))

    def next_logits(self, tokens: torch.Tensor, decoding: Written) -> torch.Tensor:
        decoding.tokens = torch.cat([decoding.tokens, tokens.unsqueeze(1)], 1)
        return torch.stack([self.after(s, t) for s, t in zip(decoding.source, decoding.tokens, strict=True)])

    def after(self, source: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        number = int(source[0])
        for token in tokens.tolist():
            number = (number * 7 + token) % 997
        return self.table[number]

    def likelihood(self, source: torch.Tensor, answer: list[int]) -> float:
        """Of the answer with its end, where it is shorter than the most."""
        written, total = [BEGIN], 0.0
        for token in [*answer, END][:MOST]:
            total += float(self.after(source, torch.tensor(written)).log_softmax(0)[token])
            written.append(token)
        return total


def every_answer() -> list[list[int]]:
    others = [token for token in range(VOCABULARY) if token != END]
    return [list(found) for n in range(MOST + 1) for found in itertools.product(others, repeat=n)]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all_answers(penalty: float) -> None:
    chain, sources = Chain(0), torch.tensor([[3], [4], [5]])
    found = Beam(400, penalty, BEGIN, END)(chain, sources, MOST)

    def score(source: torch.Tensor, answer: list[int]) -> float:
        likelihood = chain.likelihood(source, answer)
        return likelihood / float(((5 + min(MOST, len(answer) + 1)) / 6) ** penalty)

    for source, answer in zip(sources, found, strict=True):
        assert score(source, answer) == pytest.approx(max(score(source, each) for each in every_answer()), abs=1e-5)


def test_a_beam_of_one_takes_the_likeliest_token_each_time() -> None:
    chain, sources = Chain(1), torch.tensor([[3], [4], [5], [6]])
    for source, answer in zip(sources, Beam(1, 1.0, BEGIN, END)(chain, sources, MOST), strict=True):
        written = [BEGIN]
        while len(written) <= MOST and (best := int(chain.after(source, torch.tensor(written)).argmax())) != END:
            written.append(best)
        assert answer == written[1:]


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch() -> None:
    chain, sources = Chain(2), torch.tensor([[3], [4], [5], [6]])
    together = Beam(3, 1.0, BEGIN, END)(chain, sources, MOST)
    assert together == [Beam(3, 1.0, BEGIN, END)(chain, sources[i : i + 1], MOST)[0] for i in range(4)]


def test_a_penalty_of_lengths_makes_answers_longer() -> None:
    chain, sources = Chain(3), torch.arange(3, 40).unsqueeze(1)
    short, long = (sum(map(len, Beam(400, penalty, BEGIN, END)(chain, sources, MOST))) for penalty in (0.0, 2.0))
    assert short < long
