"""Features are those of transformers' audio_utils (librosa's), error rates torchmetrics'; flac and ogg are read."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from phalanx.exit.codes import ConfigError
from phalanx.train.data.speech.decode import decode
from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.tasks.speech.edit_distance import edit_distance

pytestmark = pytest.mark.zoo

RATE = 16000


@pytest.mark.parametrize(("scale", "area"), [("htk", False), ("slaney", True)])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_features_are_those_of_transformers(scale: str, area: bool, power: float) -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    wave = np.random.default_rng(0).standard_normal(7000) / 10
    filters = mel_filter_bank(
        257, 40, 20.0, 8000.0, RATE, norm="slaney" if area else None, mel_scale=scale, triangularize_in_mel_space=False
    )
    expected = spectrogram(
        wave,
        window_function(400, "hann", periodic=True),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=power,
        pad_mode="constant",
        mel_filters=filters,
        mel_floor=1e-7,
        log_mel="log",
    )
    ours = LogMel(RATE, scale=scale, area=area, power=power, normalize=False)
    features, frames = ours(torch.from_numpy(wave)[None].float(), torch.tensor([7000]))
    assert frames.tolist() == [expected.shape[1]]
    assert features[0].T.numpy() == pytest.approx(expected, abs=1e-3)


def test_error_rates_are_those_of_torchmetrics() -> None:
    from torchmetrics.text import CharErrorRate, WordErrorRate

    draw = random.Random(0)
    texts = [" ".join(draw.choices(["no", "yes", "go", "tree", "three"], k=draw.randint(1, 6))) for _ in range(80)]
    said, found = texts[:40], texts[40:]
    words = sum(edit_distance(a.split(), b.split()) for a, b in zip(said, found, strict=True))
    characters = sum(edit_distance(a, b) for a, b in zip(said, found, strict=True))
    assert words / sum(len(text.split()) for text in said) == pytest.approx(float(WordErrorRate()(found, said)))
    assert characters / sum(map(len, said)) == pytest.approx(float(CharErrorRate()(found, said)))


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
@pytest.mark.skipif(importlib.util.find_spec("soundfile") is None, reason="soundfile comes with phalanx[data]")
def test_what_soundfile_reads_is_read(tmp_path: Path, suffix: str) -> None:
    import soundfile

    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    options = {"subtype": "FLOAT"} if suffix == "wav" else {}
    soundfile.write(tmp_path / f"a.{suffix}", np.stack([tone, tone], 1), RATE, **options)
    found = decode(tmp_path / f"a.{suffix}", RATE)
    assert len(found) == 2 * RATE
    assert np.abs(np.fft.rfft(found)).argmax() == 880
    assert np.abs(found[1000:-1000]).max() == pytest.approx(0.3 * 32768, rel=0.05)


@pytest.mark.skipif(importlib.util.find_spec("soundfile") is None, reason="soundfile comes with phalanx[data]")
def test_a_sample_that_is_no_number_is_told_by_its_file(tmp_path: Path) -> None:
    """Rounded to an integer it would be noise of any height."""
    import soundfile

    samples = np.zeros(100, np.float32)
    samples[7] = np.nan
    soundfile.write(tmp_path / "x.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(ConfigError, match=r"x\.wav has a sample that is no finite number"):
        decode(tmp_path / "x.wav", 8000)
