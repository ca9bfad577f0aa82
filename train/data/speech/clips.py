"""Clips with their transcripts in a prepared folder: shards of 16-bit samples, memory-mapped, with an index."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from ...prepared.cache import Output
from ...prepared.mapped_array import MappedArray

_SHARD = 512  # clips
_CLIPS = "clips.json"


@dataclass(frozen=True)
class Clip:
    """What is known of a clip beside its samples: its text, and in the words of who made it where it is from."""

    text: str
    origin: str


def write_clips(
    output: Output, clips: Sequence[Clip], samples_of: Callable[[int, int], Iterable[NDArray[np.int16]]], rate: int
) -> None:
    """Write clips at `rate` samples a second; `samples_of(start, stop)` gives the samples of clips start..stop-1.

    Shard after shard: those that an earlier start, which was killed, completed are not asked for again.
    """
    for start in range(0, len(clips), _SHARD):
        stop = min(start + _SHARD, len(clips))
        if not output.has(f"{_samples(start)}.npy"):
            found = list(samples_of(start, stop))
            output.array(_lengths(start), np.array([len(each) for each in found], np.int64))
            output.array(_samples(start), np.concatenate(found))
        output.progress(stop, len(clips))
    output.json(_CLIPS, {"sample_rate": rate, "texts": [c.text for c in clips], "origins": [c.origin for c in clips]})


class Clips:
    """The clips of a prepared folder. Sent to another process, its shards are mapped anew there."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where the folder is damaged."""
        facts: dict[str, Any] = json.loads((folder / _CLIPS).read_text(encoding="utf-8"))
        self.folder = folder
        self.rate: int = facts["sample_rate"]
        self.texts: list[str] = facts["texts"]
        self.origins: list[str] = facts["origins"]
        starts = range(0, len(self.texts), _SHARD)
        self._shards = [MappedArray(folder / f"{_samples(start)}.npy") for start in starts]
        lengths = [np.load(folder / f"{_lengths(start)}.npy", allow_pickle=False) for start in starts]
        self.lengths: NDArray[np.int64] = np.concatenate(lengths)  # samples of each clip
        self._ends = [np.concatenate([[0], each.cumsum()]) for each in lengths]
        if any(ends[-1] != len(shard) for ends, shard in zip(self._ends, self._shards, strict=True)):
            raise ConfigError(f"{folder} is damaged: its index is of other samples. Remove it, and prepare it anew")

    def __len__(self) -> int:
        return len(self.texts)

    def samples(self, index: int) -> NDArray[np.int16]:
        """A view of the samples of a clip, not to be changed."""
        shard, place = divmod(index, _SHARD)
        ends = self._ends[shard]
        return self._shards[shard][ends[place] : ends[place + 1]]


def _samples(start: int) -> str:
    return f"samples_{start // _SHARD:05}"


def _lengths(start: int) -> str:
    return f"lengths_{start // _SHARD:05}"
