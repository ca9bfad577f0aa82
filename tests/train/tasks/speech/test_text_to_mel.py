"""Synthesis: errors are warped in time as defined, sound has the spectrogram it is made of, losses are masked."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError
from phalanx.train.data.speech.alphabet import Alphabet
from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.models.speech.fast_speech import FastSpeech
from phalanx.train.sinks.shown import Audio
from phalanx.train.tasks.now import Now
from phalanx.train.tasks.speech.ctc import CTC
from phalanx.train.tasks.speech.griffin_lim import griffin_lim
from phalanx.train.tasks.speech.text_to_mel import TextToMel, mel_distance
from phalanx.train.tasks.speech.time_warping import time_warped_cost

RATE = 8000
FEATURES = LogMel(RATE, mels=40, window_s=0.064, hop_s=0.016, power=1.0, floor=1e-3, normalize=False)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (5, 3), (6, 6)])
def test_the_path_is_the_cheapest_of_all(rows: int, columns: int) -> None:
    costs = np.random.default_rng(rows).random((rows, columns))

    @cache
    def least(i: int, j: int) -> float:
        if i == 0 and j == 0:
            return float(2 * costs[0, 0])
        ways = [least(i - 1, j) + costs[i, j]] if i else []
        ways += [least(i, j - 1) + costs[i, j]] if j else []
        ways += [least(i - 1, j - 1) + 2 * costs[i, j]] if i and j else []
        return float(min(ways))

    assert time_warped_cost(costs) == pytest.approx(least(rows - 1, columns - 1))
    assert time_warped_cost(np.ones((rows, columns))) == rows + columns, "the weight of every path"


def test_the_same_said_slower_is_no_error() -> None:
    spoken = torch.randn(6, 5)
    assert mel_distance(spoken, spoken.repeat_interleave(3, 0)) == pytest.approx(0, abs=1e-5)
    assert mel_distance(spoken, spoken + 1) / 12 == pytest.approx(1, abs=0.5)


def test_sound_has_the_features_that_it_is_made_of() -> None:
    seconds = torch.arange(RATE) / RATE
    wave = 0.3 * torch.sin(2 * math.pi * (300 * seconds + 400 * seconds**2)) + 0.01 * torch.randn(RATE)
    features, _ = FEATURES(wave[None], torch.tensor([RATE]))
    made = griffin_lim(features[0], FEATURES)
    again, _ = FEATURES(made[None], torch.tensor([len(made)]))
    apart = (again[0] - features[0, : len(again[0])]).abs().mean()
    assert len(made) == (features.shape[1] - 1) * FEATURES.hop
    assert apart < 0.35 < (features[0] - features[0].mean(0)).abs().mean()
    assert torch.equal(made, griffin_lim(features[0], FEATURES)), "the same each time"


def batch() -> dict[str, torch.Tensor]:
    return {
        "features": torch.randn(2, 12, 40, generator=torch.Generator().manual_seed(0)),
        "lengths": torch.tensor([12, 7]),
        "tokens": torch.tensor([[2, 3, 4], [5, 2, 0]]),
        "token_lengths": torch.tensor([3, 2]),
    }


def model() -> FastSpeech:
    torch.manual_seed(0)
    made = FastSpeech(tokens=29, mels=40, width=8, layers=1, dropout=0.0)
    made.state_dict()["duration.2.bias"].fill_(1.5)
    return made


def means(ratios: Any) -> dict[str, float]:
    return {name: ratio.total.item() / float(ratio.count) for name, ratio in ratios.items()}


@pytest.mark.parametrize("frames", [0, 1])
def test_what_has_no_frame_to_go_to_is_no_sound(frames: int) -> None:
    assert griffin_lim(torch.zeros(frames, 20), LogMel(8000, mels=20, normalize=False)).shape == (0,)


def test_what_stands_beyond_a_clips_end_changes_no_loss_and_a_batch_is_the_sum_of_its_clips() -> None:
    task, net, given = TextToMel(FEATURES), model().eval(), batch()
    whole = task.ratios(net, given)
    changed = {**given, "features": given["features"].clone()}
    changed["features"][1, 7:] = 99.0
    assert means(task.ratios(net, changed)) == pytest.approx(means(whole), rel=1e-5)
    parts = [task.ratios(net, {name: part[i : i + 1] for name, part in given.items()}) for i in range(2)]
    for name, ratio in whole.items():
        assert ratio.total.item() == pytest.approx(sum(part[name].total.item() for part in parts), rel=1e-4), name
        assert int(ratio.count) == sum(int(part[name].count) for part in parts), name
    assert {"loss", "l1", "prior", "duration", "mel_error"} == whole.keys()
    assert "mel_error" not in task.ratios(net.train(), given)


class Stops(nn.Module):
    """Answers as an autoregressive model does, with a logit for the end."""

    def forward(self, tokens: torch.Tensor, counts: torch.Tensor, features: torch.Tensor, lengths: torch.Tensor) -> Any:
        return {"mel": features, "stop": torch.full(features.shape[:2], -2.0, requires_grad=True)}


def test_a_model_that_says_when_it_ends_is_told_where() -> None:
    found = means(TextToMel(FEATURES, stop_weight=2.0).ratios(Stops(), batch()))
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert found["stop"] == pytest.approx((17 * right + 2 * wrong) / 19, rel=1e-5)
    assert found["loss"] == pytest.approx(2 * found["stop"], rel=1e-5)


def test_what_is_said_is_shown_as_sound_spectrogram_and_alignment() -> None:
    task = TextToMel(FEATURES)
    task.now = Now(shown=1)
    with torch.no_grad():
        shown = task.show(model().eval(), batch())
    assert shown.keys() == {"said_0", "said_0_mel", "said_0_alignment"}
    assert isinstance(shown["said_0"], Audio)
    assert shown["said_0"].encoded()[:4] == b"RIFF"
    waves = task.speak(model().eval(), ["abc", "a"])
    shown_wave = torch.as_tensor(shown["said_0"].samples)
    assert torch.allclose(waves[0], shown_wave, atol=1e-3), "the text of the first clip is abc"
    with pytest.raises(ConfigError, match="'ß'"):
        task.speak(model(), ["ß"])


def test_what_does_not_fit_is_refused_with_what_to_type() -> None:
    with pytest.raises(ConfigError, match="normalize=false"):
        TextToMel(LogMel(RATE))
    with pytest.raises(ConfigError, match=r"model\.mels=20, and the features have 40"):
        TextToMel(FEATURES).ratios(FastSpeech(29, 20, 8, 1, 0.0), {**batch(), "features": torch.zeros(2, 12, 40)})
    with pytest.raises(ConfigError, match="collate"):
        TextToMel(FEATURES).ratios(model(), (1, 2))


class Recorded(Dataset[int]):
    def __init__(self, features: LogMel, characters: str) -> None:
        self.features, self.alphabet = features, Alphabet(characters)


def test_data_of_other_features_or_characters_are_refused_before_training() -> None:
    task = TextToMel(FEATURES, "abc")
    task.check(Recorded(FEATURES, "abc"))
    with pytest.raises(ConfigError, match=r"data\.train\.features\.mels=20, and task\.features\.mels=40"):
        task.check(Recorded(LogMel(RATE, mels=20, normalize=False), "abc"))
    for checking in (task, CTC("abc")):
        with pytest.raises(ConfigError, match=r"alphabet='ab', and task\.alphabet='abc'"):
            checking.check(Recorded(FEATURES, "ab"))
