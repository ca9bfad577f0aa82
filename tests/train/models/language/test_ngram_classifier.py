"""A text's classes follow from its bytes: from pieces of them, words and pairs of words, whatever stands beside it."""

import re
from itertools import pairwise

import pytest
import torch

from phalanx.train.models.language.ngram_classifier import NgramClassifier

TEXTS = ["a good film, good!", "don't", "", "größer   als\tgrößer", "x" * 30]


def model(longest_ngram: int = 4) -> NgramClassifier:
    torch.manual_seed(0)
    net = NgramClassifier(3, 997, longest_ngram, 8, 101, 6, 4, [1, 3], 0.5).double().eval()
    torch.nn.init.normal_(net.ngrams.weight)
    return net


def padded(texts: list[str], longest: int = 40) -> torch.Tensor:
    return torch.tensor([[*text.encode(), *[0] * (longest - len(text.encode()))] for text in texts])


@torch.no_grad()
def test_a_text_has_the_same_logits_in_any_batch() -> None:
    net = model()
    together = net(padded(TEXTS))
    for row, text in zip(together, TEXTS, strict=True):
        alone = net(padded([text], max(1, len(text.encode()))))
        torch.testing.assert_close(alone[0], row)


def test_words_are_told_apart_as_a_reader_does_up_to_the_most() -> None:
    net = model()
    hashes = net._hashed_words(padded(TEXTS)).tolist()
    words = [re.findall(r"(?:[0-9A-Za-z']|[^\x00-\x7f])+|[^\s]", text)[:8] for text in TEXTS]
    known: dict[str, int] = {}
    for row, found in zip(hashes, words, strict=True):
        assert [number > 0 for number in row] == [True] * len(found) + [False] * (8 - len(found))
        for word, number in zip(found, row, strict=False):
            assert known.setdefault(word, number) == number
    assert len(set(known.values())) == len(known)


@torch.no_grad()
def test_the_linear_answer_is_the_sum_over_pieces_words_and_pairs() -> None:
    """By a plain count of what a text has."""
    net, text = model(), "good good film"
    words = net._hashed_words(padded([text]))
    numbers = [number for number in words[0].tolist() if number]
    pairs = [first * 3 + second for first, second in pairwise(numbers)]
    pieces = [text.encode()[at : at + n] for n in (2, 3, 4) for at in range(len(text) - n + 1)]
    hashed = [sum(byte * 257 ** (len(piece) - 1 - i) for i, byte in enumerate(piece)) for piece in pieces]
    table = net.ngrams.weight
    expected = sum(table[torch.tensor(group) % 997].sum(0) / len(group) ** 0.5 for group in (numbers + pairs, hashed))
    torch.testing.assert_close(net._of_ngrams(padded([text]), words)[0], expected)


def test_what_numbers_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="longest_ngram=8 lies within 1 and 7"):
        model(longest_ngram=8)
