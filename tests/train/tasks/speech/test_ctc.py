"""CTC: decoding against all paths, error rates as they are counted by hand, weights of long texts, and what is refused."""

import math
from functools import cache
from itertools import product

import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.tasks.now import Now
from phalanx.train.tasks.speech.ctc import CTC
from phalanx.train.tasks.speech.ctc_decoding import beam_search, best_path
from phalanx.train.tasks.speech.edit_distance import edit_distance
from phalanx.train.tasks.task import Ratio


def plain_distance(one: str, other: str) -> int:
    @cache
    def rest(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return len(one) - i + len(other) - j
        return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (one[i] != other[j]))

    return rest(0, 0)


def test_edits_are_the_fewest() -> None:
    words = ["", "a", "kitten", "sitting", "saturday", "sunday", "aaaa", "abab", "ba"]
    assert [[edit_distance(a, b) for b in words] for a in words] == [
        [plain_distance(a, b) for b in words] for a in words
    ]
    assert edit_distance(["the", "cat", "sat"], ["a", "cat", "sat", "down"]) == 2


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for i, token in enumerate(path) if token and (i == 0 or token != path[i - 1]))


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_likeliest_text_over_all_paths(seed: int) -> None:
    logs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double().log_softmax(-1).numpy()
    sums: dict[tuple[int, ...], float] = {}
    for path in product(range(3), repeat=5):
        text = collapsed(path)
        sums[text] = sums.get(text, 0.0) + math.exp(sum(logs[i, token] for i, token in enumerate(path)))
    likeliest = max(sums, key=lambda text: sums[text])
    found, log = beam_search(logs, 100)
    assert tuple(found) == likeliest
    assert log == pytest.approx(math.log(sums[likeliest]))
    greedy, log = best_path(logs)
    assert tuple(greedy) == collapsed(tuple(logs.argmax(1).tolist()))
    assert log == pytest.approx(logs.max(1).sum())


class Says(nn.Module):
    """Answers with the logits that it was made of, whatever it is given, and one weight."""

    def __init__(self, logits: torch.Tensor, frames: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.frames = frames

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits, self.frames


def spelled(*texts: str, characters: str = " abc") -> tuple[Says, list[int]]:
    """A model that says these texts, a blank after each character, ten frames at most."""
    logits = torch.zeros(len(texts), 10, len(characters) + 1)
    logits[:, :, 0] = 9.0
    for row, text in enumerate(texts):
        for place, character in enumerate(text):
            logits[row, 2 * place, 1 + characters.index(character)] = 19.0
    return Says(logits, torch.tensor([10] * len(texts))), [len(text) for text in texts]


def batch(*texts: str, characters: str = " abc") -> dict[str, torch.Tensor]:
    rows = [torch.tensor([1 + characters.index(each) for each in text]) for text in texts]
    return {
        "features": torch.zeros(len(texts), 20, 4),
        "lengths": torch.tensor([20] * len(texts)),
        "tokens": nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "token_lengths": torch.tensor([len(row) for row in rows]),
    }


def values(found: object) -> dict[str, float]:
    assert isinstance(found, dict)
    return {
        name: float(ratio.total.detach()) / float(ratio.count)
        for name, ratio in found.items()
        if isinstance(ratio, Ratio)
    }


@pytest.mark.parametrize("beam", [1, 4])
def test_error_rates_are_edits_over_all_words_and_characters(beam: int) -> None:
    model, _ = spelled("ab c", "aa", "b")
    found = values(CTC(" abc", beam=beam).ratios(model.eval(), batch("ab c", "ab", "c a")))
    assert found["wer"] == pytest.approx((0 + 1 + 2) / (2 + 1 + 2))
    assert found["cer"] == pytest.approx((0 + 1 + 3) / (4 + 2 + 3))
    assert found["unalignable"] == 0


def test_the_loss_counts_utterances_or_tokens_and_leaves_out_what_cannot_be_aligned() -> None:
    model, _ = spelled("ab c", "a")
    given = batch("ab c", "a")
    each = [
        values(CTC(" abc").ratios(*one))["loss"]
        for one in ((spelled("ab c")[0], batch("ab c")), (spelled("a")[0], batch("a")))
    ]
    assert values(CTC(" abc").ratios(model, given))["loss"] == pytest.approx(sum(each) / 2, rel=1e-5)
    by_token = values(CTC(" abc", weighting="tokens").ratios(model, given))
    assert by_token["loss"] == pytest.approx(sum(each) / 5, rel=1e-5)
    assert "wer" not in by_token, "training decodes nothing"
    short, _ = spelled("a", "a")
    short.frames = torch.tensor([10, 3])
    found = CTC(" abc").ratios(short, batch("a", "bb c"))
    assert (float(found["unalignable"].total), math.isfinite(found["loss"].total.item())) == (1, True)
    alone = CTC(" abc").ratios(spelled("a")[0], batch("a"))
    assert values(found)["loss"] == pytest.approx(values(alone)["loss"]), "and does not count in the mean either"
    by_tokens = CTC(" abc", weighting="tokens").ratios(short, batch("a", "bb c"))
    assert int(by_tokens["loss"].count) == 1
    found["loss"].total.backward()
    assert short.logits.grad is not None
    assert not short.logits.grad[1].any()


def test_predictions_and_what_is_shown_have_both_texts() -> None:
    task = CTC(" abc")
    task.now = Now(shown=2)
    model, _ = spelled("ab c", "aa")
    found = task.predictions(model.eval(), batch("ab c", "ab"))
    assert [(each["prediction"], each["text"]) for each in found] == [("ab c", "ab c"), ("aa", "ab")]
    assert all(0.9 < each["score"] <= 1 for each in found)
    with torch.no_grad():
        shown = task.show(model, batch("ab c", "ab"))
    assert shown["transcripts"].encoded().decode().split("\r\n")[1:3] == ["ab c,ab c", "ab,aa"]
    assert {"features", "tokens"} < shown.keys()


def test_what_does_not_fit_is_refused_with_what_to_type() -> None:
    with pytest.raises(ConfigError, match="weighting=words"):
        CTC(weighting="words")
    with pytest.raises(ConfigError, match="'a' twice"):
        CTC("aba")
    model, _ = spelled("a")
    with pytest.raises(ConfigError, match=r"model\.classes=4"):
        CTC("abc").ratios(model, batch("a"))
    with pytest.raises(ConfigError, match="collate"):
        CTC().ratios(model, (torch.zeros(2), torch.zeros(2)))
    with pytest.raises(ConfigError, match=r"\(logits, lengths\)"):
        CTC().ratios(nn.Bilinear(4, 1, 2), {**batch("a"), "lengths": torch.zeros(1, 20, 1)})  # answers with a tensor
