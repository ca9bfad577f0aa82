"""Folders of sound that tests write: tones that spell words."""

import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 8000
_LETTER_S = 0.12


def spelled(text: str) -> NDArray[np.int16]:
    """A tone for each letter of a text in a, b, c and d, silence for a space."""
    seconds = np.arange(int(RATE * _LETTER_S)) / RATE
    hz = {"a": 300, "b": 600, "c": 1100, "d": 1900}
    tones = [0.5 * np.sin(2 * np.pi * hz[each] * seconds) if each in hz else 0 * seconds for each in text]
    return np.rint(np.concatenate(tones) * 20000).astype(np.int16)


def write_wav(file: Path, samples: NDArray[np.int16], rate: int = RATE, channels: int = 1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(np.ascontiguousarray(samples).astype("<i2").tobytes())


def write_folder(folder: Path, texts: Mapping[str, str]) -> Path:
    """Recordings of texts by their paths, and the manifest that names them."""
    for name, text in texts.items():
        write_wav(folder / name, spelled(text))
    manifest = folder / "manifest.tsv"
    manifest.write_text("path\ttext\n" + "".join(f"{name}\t{text}\n" for name, text in texts.items()))
    return manifest


def words(count: int) -> dict[str, str]:
    """Paths and texts of so many recordings of one to three words, the same each time."""
    draw = np.random.default_rng(0)
    texts = [" ".join("".join(draw.choice(list("abcd"), 2)) for _ in range(1 + i % 3)) for i in range(count)]
    return {f"clips/{i}.wav": text for i, text in enumerate(texts)}
