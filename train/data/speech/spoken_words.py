"""Words and phrases spoken by eSpeak NG in many voices: synthetic speech, made when it is prepared."""

import json
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...loading.rng import integer
from ...prepared.cache import Cache, Output, Recipe
from ...prepared.downloads import Download, Pip
from .alphabet import ENGLISH
from .clips import Clip, write_clips
from .decode import resampled, to_int16
from .log_mel import LogMel
from .recordings import Recordings

_VERSION = 1
_RATE = 16000
_WHEELS = {  # of espeakng-loader, which holds the library and its voices, by machine
    "x86_64": "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
}
# Those of Speech Commands (Warden 2018).
_WORDS = (
    "zero one two three four five six seven eight nine yes no up down left right on off stop go backward forward follow "
    "learn visual bed bird cat dog happy house marvin sheila tree wow"
)
# What eSpeak NG calls its accents of English, and those of its voices that sound like people: whispers, robots and monsters
# are left out.
_ACCENTS = "en en-us en-gb-scotland en-029 en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc"
_VARIANTS = (
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed "
    "adam anika announcer antonio aunty belinda benjamin boris caleb david ed edward edward2 f1 f2 f3 f4 f5 grandma "
    "grandpa gustave ian iven iven2 iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4 linda m1 m2 m3 m4 m5 m6 m7 m8 "
    "marcelo max michel miguel mike2 norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis "
    "victor zac"
)
WORDS, ACCENTS, VARIANTS = tuple(_WORDS.split()), tuple(_ACCENTS.split()), tuple(_VARIANTS.split())
HELD_OUT = VARIANTS[::5]  # voices that no training clip has
SPLITS = {"many": {"words": 700, "phrases": 400, "train": 6000}, "one": {"phrases": 120, "train": 1500}}


@dataclass(frozen=True)
class Utterance:
    """What is said, and how: the voice by eSpeak NG's name, pitch and its range from 0 to 99."""

    text: str
    voice: str
    words_per_minute: int
    pitch: int
    range: int


class SpokenWords(Recordings):
    """The 35 words of Speech Commands, alone and in phrases, at 16 kHz. Synthetic: no person says them.

    `speakers=many`: 80 voices with 8 accents, each clip at its own speed and pitch. Splits: `train`, 6,000 clips of one to
    three words by 64 voices; `words`, 700 single words, and `phrases`, 400 clips of two or three words that are not in
    `train`, by 16 other voices.

    `speakers=one`: one voice, at one speed and pitch, saying two to four words. Splits: `train`, 1,500; `phrases`, 120
    others.
    """

    def __init__(
        self,
        split: str,
        features: LogMel,
        cache: Cache,
        speakers: str = "many",
        alphabet: str = ENGLISH,
        download: bool = False,
    ) -> None:
        if speakers not in SPLITS or split not in SPLITS[speakers]:
            known = "; ".join(f"speakers={name} with split {', '.join(each)}" for name, each in SPLITS.items())
            raise ConfigError(f"There is no speakers={speakers} with split={split}. Type one of these: {known}")
        start = 0
        for name, clips in SPLITS[speakers].items():
            if name == split:
                break
            start += clips
        folder = cache.prepared(recipe(speakers), download)
        super().__init__(folder, features, alphabet, range(start, start + SPLITS[speakers][split]))


def recipe(speakers: str) -> Recipe:
    """Raises ConfigError on a machine for which the package has no library."""
    if platform.machine() not in _WHEELS:
        raise ConfigError(
            f"eSpeak NG, which speaks these words, comes for {' and '.join(_WHEELS)}, and this is {platform.machine()}. "
            "Copy data.cache from such a machine"
        )
    espeak = Download(
        [Pip("espeakng-loader", "0.2.4")],
        _WHEELS[platform.machine()],
        "GPL-3.0-or-later",
        "eSpeak NG 1.52, a program that speaks; the clips are what it says, synthetic speech",
    )

    def write(files: Sequence[Path], output: Output) -> None:
        asked = utterances(speakers)
        with tempfile.TemporaryDirectory() as folder:
            library = _unpacked(files[0], Path(folder))
            clips = [Clip(each.text, f"{each.voice}, clip {i}") for i, each in enumerate(asked)]
            write_clips(output, clips, lambda start, stop: _spoken(library, asked[start:stop]), _RATE)

    return Recipe(f"spoken-words-{speakers}", _VERSION, [espeak], write)


def utterances(speakers: str) -> list[Utterance]:
    """What is said in the clips of all splits, in their order; the same on every machine."""
    said: list[Utterance] = []
    held_out: set[str] = set()
    for split, clips in SPLITS[speakers].items():
        found = [_utterance(speakers, split, clip, held_out) for clip in range(clips)]
        if split == "phrases":
            held_out = {each.text for each in found}
        said += found
    return said


def _utterance(speakers: str, split: str, clip: int, held_out: set[str]) -> Utterance:
    place = [*SPLITS["many"]].index(split)

    def draw(use: int, below: int, attempt: int = 0) -> int:
        return integer(0, len(speakers), place, clip, use, attempt) % below

    words = {"words": [1], "phrases": [2, 3], "train": [1, 1, 2, 2, 3]}[split] if speakers == "many" else [2, 3, 4]
    for attempt in range(1000):
        count = words[clip % len(words)]
        text = " ".join(WORDS[draw(10 + i, len(WORDS), attempt)] for i in range(count))
        text = WORDS[clip % len(WORDS)] if split == "words" else text
        if text not in held_out:
            break
    if speakers == "one":
        return Utterance(text, "en-us+f2", 140, 50, 50)
    variants = [each for each in VARIANTS if (each in HELD_OUT) == (split != "train")]
    voice = f"{ACCENTS[draw(0, len(ACCENTS))]}+{variants[draw(1, len(variants))]}"
    return Utterance(text, voice, 120 + draw(2, 81), 30 + draw(3, 41), 30 + draw(4, 41))


def _unpacked(wheel: Path, folder: Path) -> Path:
    """The folder with the library and its data, the only members of the wheel that are read."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            parts = name.split("/")
            wanted = name.endswith("/libespeak-ng.so") or parts[1:2] == ["espeak-ng-data"]
            if parts[0] == "espeakng_loader" and wanted and ".." not in parts and parts[-1]:
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    return folder / "espeakng_loader"


def _spoken(library: Path, asked: Sequence[Utterance]) -> Iterator[NDArray[np.int16]]:
    """The samples of each utterance, by one process that says them all. Raises OSError where it fails."""
    out = library / "spoken.npy"
    words = {"library": str(library / "libespeak-ng.so"), "data": str(library), "out": str(out)}
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("espeak.py"))],
        input=json.dumps({**words, "utterances": [asdict(each) for each in asked]}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise OSError(f"eSpeak NG ended with code {done.returncode}: {done.stderr.strip()[-200:]}")
    facts = json.loads(done.stdout)
    samples = np.load(out, allow_pickle=False)
    ends = np.cumsum(facts["lengths"])
    for start, stop in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        yield to_int16(resampled(samples[start:stop].astype(np.float32), facts["rate"], _RATE))
