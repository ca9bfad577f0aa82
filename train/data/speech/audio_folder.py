"""Recordings of one's own: sound files, named with their transcripts in a manifest."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

from ...prepared.cache import Cache, Output, Recipe
from .alphabet import ENGLISH
from .clips import Clip, write_clips
from .decode import decode
from .log_mel import LogMel
from .manifest import Entry, read_manifest
from .recordings import Recordings

_VERSION = 1


class AudioFolder(Recordings):
    """The recordings of a `manifest`, a table with `path`, relative to it, and `text`, at the rate of `features`.

    They are decoded once, into the cache, for the manifest at this path and this rate: `phalanx prepare`, or the first
    start. Where files are exchanged under the same names, remove that folder of the cache. `lower`: transcripts in small
    letters.
    """

    def __init__(
        self, manifest: str, features: LogMel, cache: Cache, alphabet: str = ENGLISH, lower: bool = False
    ) -> None:
        file = Path(manifest)
        if not file.is_file():
            raise ConfigError(f"manifest={manifest} is no file. Name a table with the columns path and text")
        rate = features.sample_rate
        write = functools.partial(_write, file, rate, lower)
        # The path, too: manifests of clean and of noisy recordings may say the same.
        options = {"manifest": sha256(file), "path": str(file.resolve()), "rate": rate, "lower": lower}
        folder = cache.prepared(Recipe(f"recordings-{file.stem}", _VERSION, (), write, options), download=False)
        super().__init__(folder, features, alphabet)


def _write(manifest: Path, rate: int, lower: bool, files: Sequence[Path], output: Output) -> None:
    entries = read_manifest(manifest)
    clips = [Clip(_text(e, lower), f"{manifest}, line {e.line}") for e in entries]

    def samples(start: int, stop: int) -> Iterator[NDArray[np.int16]]:
        for entry in entries[start:stop]:
            try:
                yield decode(manifest.parent / entry.path, rate)
            except ConfigError as error:
                raise ConfigError(f"{manifest}, line {entry.line}: {error}") from None

    write_clips(output, clips, samples, rate)


def _text(entry: Entry, lower: bool) -> str:
    return entry.text.lower() if lower else entry.text
