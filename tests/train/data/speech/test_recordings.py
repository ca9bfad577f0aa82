"""Recordings are decoded once, go on after a kill where they were, and what is wrong is told by file and line."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError
from phalanx.train.data.speech import clips as clips_module
from phalanx.train.data.speech import decode as decode_module
from phalanx.train.data.speech.alphabet import ENGLISH
from phalanx.train.data.speech.audio_folder import AudioFolder
from phalanx.train.data.speech.clips import Clip, Clips, write_clips
from phalanx.train.data.speech.decode import decode
from phalanx.train.data.speech.log_mel import LogMel
from phalanx.train.data.speech.manifest import read_manifest
from phalanx.train.data.speech.recordings import Recordings
from phalanx.train.prepared.cache import Cache, Output
from tests.train.data.speech.sounds import RATE, spelled, words, write_folder, write_wav

FEATURES = LogMel(RATE, mels=20)


def folder(path: Path, texts: dict[str, str] | None = None) -> AudioFolder:
    return AudioFolder(str(write_folder(path / "sounds", texts or words(6))), FEATURES, Cache(path / "cache"))


def test_clips_are_what_the_files_hold_also_once_these_are_gone(tmp_path: Path) -> None:
    data = folder(tmp_path)
    for name in words(6):
        (tmp_path / "sounds" / name).unlink()
    again = AudioFolder(str(tmp_path / "sounds/manifest.tsv"), FEATURES, Cache(tmp_path / "cache"))
    assert again.texts == list(words(6).values())
    for i, text in enumerate(again.texts):
        samples, tokens = again[i]
        assert torch.equal(samples, torch.from_numpy(spelled(text)))
        assert [ENGLISH[token - 1] for token in tokens.tolist()] == list(text)
    assert again.lengths.tolist() == [len(spelled(text)) for text in again.texts]
    assert again.fingerprint() == data.fingerprint()
    batch = again.collate([again[i] for i in range(6)])
    assert batch["features"].shape == (6, int(batch["lengths"].max()), 20)
    assert batch["token_lengths"].tolist() == [len(text) for text in again.texts]
    assert not batch["tokens"][0, 2:].any(), "zeros beyond each text"


def test_json_lines_say_the_same_as_a_table(tmp_path: Path) -> None:
    write_folder(tmp_path, words(3))
    lines = [json.dumps({"speaker": 7, "path": name, "text": f"  {text}\n"}) for name, text in words(3).items()]
    (tmp_path / "manifest.jsonl").write_text("\n\n".join(lines))
    one, other = (read_manifest(tmp_path / f"manifest.{kind}") for kind in ("tsv", "jsonl"))
    assert [(each.path, each.text) for each in one] == [(each.path, each.text) for each in other]


def test_channels_are_averaged_and_rates_brought_to_one(tmp_path: Path) -> None:
    tone = np.rint(10000 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)).astype(np.int16)
    write_wav(tmp_path / "a.wav", np.stack([tone, 0 * tone], 1), rate=22050, channels=2)
    found = decode(tmp_path / "a.wav", RATE)
    assert len(found) == RATE
    spectrum = np.abs(np.fft.rfft(found))
    assert spectrum.argmax() == 440
    assert np.abs(found).max() == pytest.approx(5000, rel=0.05)


def header(name: str, value: int) -> bytes:
    """A WAV file of two samples whose header has another number there."""
    numbers = {"rate": 8000, "bytes": 4, name: value}
    form = struct.pack("<HHIIHH", 1, 1, numbers["rate"], 2 * numbers["rate"], 2, 16)
    sound = b"data" + struct.pack("<Ihh", numbers["bytes"], 3, 5)
    return b"RIFF" + struct.pack("<I", 40) + b"WAVEfmt " + struct.pack("<I", 16) + form + sound


RATELESS = header("rate", 0)


@pytest.mark.parametrize("announced", [2**32 - 1, 2**31 - 4096])
def test_sound_that_was_written_into_a_pipe_is_read_to_its_end(tmp_path: Path, announced: int) -> None:
    """Who writes into a pipe does not know how long it gets: ffmpeg and sox announce as much as there can be."""
    (tmp_path / "x.wav").write_bytes(header("bytes", announced))
    assert decode(tmp_path / "x.wav", 8000).tolist() == [3, 5]


def test_two_folders_whose_manifests_say_the_same_have_their_own_sound(tmp_path: Path) -> None:
    """As of clean and of noisy recordings: before, the second one trained on the sound of the first."""
    one = folder(tmp_path, {"x.wav": "ab"})
    write_folder(tmp_path / "others", {"x.wav": "ab"})
    write_wav(tmp_path / "others" / "x.wav", spelled("cd"))
    other = AudioFolder(str(tmp_path / "others/manifest.tsv"), FEATURES, Cache(tmp_path / "cache"))
    assert one[0][0].tolist() == spelled("ab").tolist()
    assert other[0][0].tolist() == spelled("cd").tolist()


WRONG: dict[str, tuple[dict[str, bytes | int | None], str | bytes, str]] = {
    "no file": ({}, "path\ttext\nx.wav\tab\n", "line 2: .*x.wav cannot be read: No such file"),
    "damaged": ({"x.wav": b"RIFF\x10\0\0\0WAVEjunk"}, "path\ttext\n\nx.wav\tab\n", "line 3: .*x.wav"),
    "cut short": ({"x.wav": None}, "path\ttext\nx.wav\tab\n", "line 2: .*x.wav is cut short"),
    "no rate": ({"x.wav": RATELESS}, "path\ttext\nx.wav\tab\n", "line 2: .*x.wav has 0 samples a second"),
    "empty": ({"x.wav": 0}, "path\ttext\nx.wav\tab\n", "line 2: .*x.wav holds no sound"),
    "character": ({"x.wav": 1}, "path\ttext\nx.wav\ta1\n", "line 2: 'a1' has the character '1'.*alphabet="),
    "column": ({}, "file\ttext\nx.wav\tab\n", "line 1: no column is called path.*columns are file, text"),
    "tabs": ({}, "path\ttext\nx.wav ab\n", "line 2: 1 cells, and line 1 names 2 columns"),
    "no text": ({"x.wav": 1}, "path\ttext\nx.wav\t \n", "line 2: no text"),
    "none": ({}, "path\ttext\n", "has no row"),
    "encoding": ({}, b"path\ttext\nx.wav\tab\ny.wav\t\xe4\n", "line 3: byte 0xe4 is no utf-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_by_file_and_line_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    files, manifest, message = WRONG[case]
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            write_wav(tmp_path / name, spelled("ab")[: None if content is None else content * 500])
            if content is None:
                (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-101])
    file = tmp_path / "manifest.tsv"
    file.write_bytes(manifest if isinstance(manifest, bytes) else manifest.encode())
    with pytest.raises(ConfigError, match=f"(?s)manifest.tsv.*{message}"):
        AudioFolder(str(file), FEATURES, Cache(tmp_path / "cache"))
    whole = [path for path in tmp_path.glob("cache/recordings*/prepared.json")]
    assert case == "character" or not whole


def test_other_formats_say_which_package_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.flac").write_bytes(b"fLaC")
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(ConfigError, match=r"x\.flac .* pip install 'phalanx\[data\]'"):
        decode(tmp_path / "x.flac", RATE)


def test_a_killed_preparation_goes_on_with_the_shard_that_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips_module, "_SHARD", 2)
    texts = ["a", "bb", "c", "ad", "d"]
    clips = [Clip(text, f"line {i}") for i, text in enumerate(texts)]
    asked: list[int] = []

    def samples(fails: bool) -> Callable[[int, int], Iterator[NDArray[np.int16]]]:
        def of(start: int, stop: int) -> Iterator[NDArray[np.int16]]:
            asked.append(start)
            if fails and start == 2:
                raise KeyboardInterrupt
            return (spelled(text) for text in texts[start:stop])

        return of

    with pytest.raises(KeyboardInterrupt):
        write_clips(Output(tmp_path, "x"), clips, samples(True), RATE)
    write_clips(Output(tmp_path, "x"), clips, samples(False), RATE)
    assert asked == [0, 2, 2, 4]
    found = Clips(tmp_path)
    assert [found.samples(i).tolist() for i in range(5)] == [spelled(text).tolist() for text in texts]


def test_files_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    monkeypatch.setattr(decode_module, "_wav", None)
    folder(tmp_path)
    with pytest.raises(TypeError):
        folder(tmp_path, words(7))  # another manifest


def test_another_rate_than_that_of_the_features_is_refused(tmp_path: Path) -> None:
    data = folder(tmp_path)
    with pytest.raises(ConfigError, match=r"8000 samples a second, and features\.sample_rate=16000"):
        Recordings(data._clips.folder, LogMel(16000), ENGLISH)
