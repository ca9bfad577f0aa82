"""Log-mel features are what their formula says, of a clip alone and in a batch, and are masked by each clip's position."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError
from phalanx.train.data.speech.log_mel import LogMel, mel_filters
from phalanx.train.data.speech.spec_augment import SpecAugment
from phalanx.train.loading.rng import Draws

RATE = 8000


def waves(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randn(length, generator=generator) / 10 for length in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(lengths)


def htk(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def by_formula(wave: NDArray[np.float64], log_mel: LogMel, frame: int) -> NDArray[np.float64]:
    """The logarithms of a frame by sums over samples, as they are defined."""
    length, fft = log_mel.window_length, log_mel.fft
    around = np.arange(length) - length // 2 + frame * log_mel.hop
    inside = (around >= 0) & (around < len(wave))
    samples = np.where(inside, wave[around.clip(0, len(wave) - 1)], 0) * (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    )
    turns = np.exp(-2j * np.pi * np.outer(np.arange(fft // 2 + 1), np.arange(length)) / fft)
    energy = np.abs(turns @ samples) ** log_mel.power
    hz = np.arange(fft // 2 + 1) * RATE / fft
    corners = 700 * (10 ** (np.linspace(htk(20), htk(RATE / 2), log_mel.mels + 2) / 2595) - 1)
    bands = [np.interp(hz, corners[i : i + 3], [0, 1, 0]) @ energy for i in range(log_mel.mels)]
    return np.log(np.maximum(bands, log_mel.floor))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_frame_is_what_the_formula_says(power: float) -> None:
    log_mel = LogMel(RATE, mels=12, power=power, normalize=False)
    wave, length = waves(1000)
    features, frames = log_mel(wave, length)
    assert (features.shape, frames.tolist()) == ((1, 13, 12), [13])
    for frame in (0, 5, 12):
        assert features[0, frame].numpy() == pytest.approx(
            by_formula(wave[0].double().numpy(), log_mel, frame), abs=2e-4
        )


def test_the_scales_are_htks_and_slaneys() -> None:
    """Slaney's corners are those that librosa's documentation lists for 40 mels up to 11,025 Hz."""
    peaks = mel_filters(38, 1 << 15, 22050, 0.0, 11025.0, "slaney", False).argmax(1) * 22050 / (1 << 15)
    listed = [85.317, 170.635, 255.952, 341.269, 426.586, 511.904, 597.221, 682.538, 767.855, 853.173, 938.49, 1024.856]
    assert peaks[:12].tolist() == pytest.approx(listed, abs=0.4)
    (peak,) = mel_filters(1, 1 << 15, RATE, 0.0, 4000.0, "htk", False).argmax(1) * RATE / (1 << 15)
    assert float(peak) == pytest.approx(700 * (math.sqrt(1 + 4000 / 700) - 1), abs=0.2)
    areas = mel_filters(10, 4096, RATE, 0.0, 4000.0, "slaney", True).sum(1) * RATE / 4096
    assert areas.tolist() == pytest.approx([1.0] * 10, abs=2e-3)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_clip_has_the_same_features_alone_and_in_a_batch(normalize: bool) -> None:
    log_mel = LogMel(RATE, normalize=normalize)
    batch, lengths = waves(700, 2000)
    features, frames = log_mel(batch, lengths)
    alone, _ = log_mel(batch[:1, :700], lengths[:1])
    assert torch.allclose(features[0, : frames[0]], alone[0], atol=1e-4)
    assert not features[0, frames[0] :].any()
    if normalize:
        assert torch.allclose(alone[0].mean(0), torch.zeros(40), atol=1e-4)
        assert torch.allclose(alone[0].std(0, correction=0), torch.ones(40), atol=2e-2)


@pytest.mark.parametrize("wrong", [{"low_hz": 5000.0}, {"scale": "bark"}, {"hop_s": 0.0}, {"mels": 0}])
def test_arguments_that_give_no_features_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LogMel(RATE, **wrong)  # type: ignore[arg-type]


def batch_of(lengths: list[int]) -> dict[str, torch.Tensor]:
    return {"features": torch.ones(len(lengths), max(lengths), 40), "lengths": torch.tensor(lengths)}


def test_what_spec_augment_hides_depends_on_a_samples_position_alone() -> None:
    """Not on which samples are beside it: a rank's share is masked as it is in the whole batch."""
    augment = SpecAugment()
    whole = augment(batch_of([90, 60, 100, 80]), Draws(5, np.arange(10, 14)))["features"]
    share = augment(batch_of([60, 100]), Draws(5, np.arange(11, 13)))["features"]
    assert torch.equal(whole[1:3, :100], share)
    assert not torch.equal(whole, augment(batch_of([90, 60, 100, 80]), Draws(6, np.arange(10, 14)))["features"])


def test_spec_augment_hides_no_more_than_it_says() -> None:
    augment = SpecAugment(band_masks=1, bands=6, time_masks=1, frames=30, share=0.1)
    lengths = [100] * 300 + [50] * 300
    kept = augment(batch_of(lengths), Draws(1, np.arange(600)))["features"].bool()
    bands = (~kept.any(1)).sum(1)
    stretches = (~kept.any(2)).sum(1)
    assert sorted(set(bands.tolist())) == list(range(7))
    assert sorted(set(stretches[:300].tolist())) == list(range(11)), "a tenth of 100 frames"
    assert stretches[300:].max() == 5, "a tenth of 50 frames"
    assert kept[300:, 50:].any(2).all(), "beyond a clip's end nothing is hidden"
