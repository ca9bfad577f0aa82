"""The task of the token that follows: exact sums, bits a byte, and what it shows."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError
from phalanx.train.models.language.gpt import GPT
from phalanx.train.sinks.shown import Image, Table
from phalanx.train.tasks.language.language_modeling import LanguageModeling
from phalanx.train.tasks.now import Now
from phalanx.train.tasks.task import Sum


class Words:
    """Five tokens, of 1 to 5 bytes."""

    token_bytes = (1, 2, 3, 4, 5)

    def decode(self, tokens: Any) -> str:
        return "".join("abcde"[int(token)] * (int(token) + 1) for token in tokens)


class Fixed(nn.Module):
    """Answers any tokens with the same logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self._logits = logits

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._logits


def task() -> LanguageModeling:
    return LanguageModeling(prompt=3, new=4, temperature=0.8, top_k=2)


def test_loss_and_bits_are_means_over_what_is_counted() -> None:
    """And the same however samples are cut into batches."""
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 5), torch.randint(0, 5, (4, 6))
    targets[0, 2:] = -100
    targets[3] = -100
    made = task()
    made.check(Words())  # type: ignore[arg-type]
    whole = made.ratios(Fixed(logits), (targets, targets))
    parts = [made.ratios(Fixed(logits[rows]), (targets[rows], targets[rows])) for rows in (slice(0, 1), slice(1, 4))]
    for name, ratio in whole.items():
        assert float(ratio.count) == sum(float(part[name].count) for part in parts)
        torch.testing.assert_close(ratio.total, parts[0][name].total + parts[1][name].total)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    length = sum(target + 1 for target in targets.flatten().tolist() if target >= 0)
    torch.testing.assert_close(whole["bits_per_byte"].total / whole["bits_per_byte"].count, nats / math.log(2) / length)
    assert int(whole["loss"].count) == 14
    assert made.derive({"loss": Sum(6.0, 3.0)})["perplexity"] == pytest.approx(math.exp(2))


def test_it_shows_how_the_model_goes_on_and_what_it_attends_to() -> None:
    made, tokens = task(), torch.randint(0, 5, (4, 6))
    made.check(Words())  # type: ignore[arg-type]
    made.now = Now(0, 1, shown=2)
    model = GPT(vocabulary=5, length=8, width=12, heads=3, layers=2, dropout=0.0, fused=False).eval()
    shown = made.show(model, (tokens, tokens))
    continued, picture = shown["continued"], shown["attention"]
    assert isinstance(continued, Table)
    assert [row[0] for row in continued.rows] == [Words().decode(row[:3]) for row in tokens[:2]]
    assert all(len(str(row[1])) >= 4 for row in continued.rows)
    assert isinstance(picture, Image)
    assert picture.encoded().startswith(b"\x89PNG")
    assert task().show(model, (tokens, tokens)) == {}


@pytest.mark.parametrize(
    ("batch", "logits", "told"),
    [
        (torch.zeros(2, 3), (2, 3, 5), "pairs .tokens, targets."),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), (2, 3, 5), "whole numbers"),
        ((torch.zeros(2, 3).long(), torch.zeros(2, 2).long()), (2, 3, 5), "pairs .tokens, targets."),
        ((torch.zeros(2, 3).long(), torch.full((2, 3), 5)), (2, 3, 5), "Type model.vocabulary=6"),
        ((torch.zeros(2, 3).long(), torch.zeros(2, 3).long()), (2, 5), "a model that answers for each token"),
    ],
)
def test_what_does_not_fit_is_told(batch: Any, logits: tuple[int, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        task().ratios(Fixed(torch.zeros(logits)), batch)


def test_data_sets_of_two_tokenizers_are_told() -> None:
    made, other = task(), Words()
    made.check(Words())  # type: ignore[arg-type]
    other.token_bytes = (1, 1, 1, 1, 1)
    with pytest.raises(ConfigError, match="by one tokenizer"):
        made.check(other)  # type: ignore[arg-type]
