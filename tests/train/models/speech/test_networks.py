"""What the networks for speech answer with depends on the clip alone, and alignments are the best there are."""

import math
from itertools import combinations

import pytest
import torch
from torch import nn

from phalanx.train.models.speech.alignment import monotonic_alignment
from phalanx.train.models.speech.conv_gru import ConvGRU
from phalanx.train.models.speech.fast_speech import FastSpeech

LENGTHS = torch.tensor([9, 20, 13])


def features(mels: int) -> torch.Tensor:
    values = torch.randn(3, 20, mels, generator=torch.Generator().manual_seed(0))
    return values * (torch.arange(20) < LENGTHS[:, None])[:, :, None]


def test_a_recogniser_answers_a_clip_alike_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = ConvGRU(mels=6, classes=5, width=8, layers=2, dropout=0.0)
    logits, frames = model(features(6), LENGTHS)
    assert (logits.shape, frames.tolist()) == ((3, 10, 5), [5, 10, 7])
    for i, length in enumerate(LENGTHS.tolist()):
        alone, count = model(features(6)[i : i + 1, :length], LENGTHS[i : i + 1])
        assert torch.allclose(alone[0], logits[i, : int(count)], atol=1e-5)


def test_a_recogniser_hears_what_comes_before_and_after() -> None:
    torch.manual_seed(0)
    model = ConvGRU(mels=6, classes=5, width=8, layers=1, dropout=0.0)
    given = features(6).requires_grad_()
    model(given, LENGTHS)[0][1, 5].sum().backward()
    assert given.grad is not None
    assert given.grad[1].abs().sum(1).gt(0).all(), "of the same clip every frame counts"
    assert not given.grad[[0, 2]].any(), "of others none"


@pytest.mark.parametrize("seed", range(6))
def test_the_alignment_is_the_best_of_all(seed: int) -> None:
    scores = torch.randn(1, 3, 7, generator=torch.Generator().manual_seed(seed))
    found = monotonic_alignment(scores, torch.tensor([3]), torch.tensor([6]))[0, :6]
    every = []
    for cuts in combinations(range(1, 6), 2):
        token = torch.tensor([sum(frame >= cut for cut in cuts) for frame in range(6)])
        every.append((float(scores[0, token, torch.arange(6)].sum()), token.tolist()))
    assert found.tolist() == max(every)[1]


def test_alignments_of_a_batch_are_those_of_its_clips() -> None:
    scores = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1))
    tokens, lengths = torch.tensor([4, 2]), torch.tensor([9, 5])
    found = monotonic_alignment(scores, tokens, lengths)
    alone = monotonic_alignment(scores[1:, :2, :5], tokens[1:], lengths[1:])
    assert found[1, :5].tolist() == alone[0].tolist()
    assert found[0, -1] == 3, "the last frame is the last token's"
    assert sorted(set(found[0].tolist())) == [0, 1, 2, 3], "and none is left out"


def test_speech_of_a_text_is_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = FastSpeech(tokens=7, mels=6, width=8, layers=2, dropout=0.0, mean=-1.0, std=2.0)
    tokens, counts = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([4, 2])
    model.state_dict()["duration.2.bias"].fill_(1.0)  # about three frames a token
    spoken = model(tokens, counts)
    alone = model(tokens[1:, :2], counts[1:])
    length = int(alone["lengths"])
    assert 2 < length == int(spoken["lengths"][1])
    assert torch.allclose(spoken["mel"][1, :length], alone["mel"][0], atol=1e-5)
    recorded = torch.randn(2, 11, 6)
    heard = model(tokens, counts, recorded, torch.tensor([11, 8]))
    assert heard["mel"].shape == recorded.shape
    assert heard["durations"].sum(1).tolist() == [11, 8]


@pytest.mark.parametrize("said", [100.0, math.nan])
def test_a_model_that_says_any_duration_answers_with_what_fits_into_memory(said: float) -> None:
    """As one does whose training has gone wrong: e to the 100 frames a character ended the evaluation."""
    model = FastSpeech(tokens=5, mels=4, width=8, layers=1, dropout=0.0).eval()
    nn.init.constant_(model.duration[2].bias, said)  # type: ignore[arg-type]
    with torch.no_grad():
        answer = model(torch.tensor([[1, 2, 0]]), torch.tensor([2]))
    assert 2 <= int(answer["lengths"][0]) <= 1000
    assert answer["mel"].shape[1] == int(answer["lengths"][0])
