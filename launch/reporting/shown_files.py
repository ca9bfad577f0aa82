"""What the evaluations of runs show, read from their folders for a page: checked, bounded in size, and inert there.

A run's folder may come from anybody. A picture is embedded as the PNG that its header says it is, sound as a WAV, and all
else as text; nothing is decoded here, and links are not followed.
"""

import base64
import csv
import io
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.common.files import open_regular
from phalanx.run_folder import names
from phalanx.run_folder.links import entries

PAGE_BYTES = 16 << 20  # of files in a page
_FILE_BYTES = 4 << 20
_EVALUATIONS = 24  # of each split and run
_SIDE, _PIXELS = 8192, 1 << 24
_CHARACTERS, _ROWS, _COLUMNS, _CELL = 20_000, 100, 20, 1000
_FOLDER = re.compile(rf"([\w-]{{1,100}})_{names.STEP}(\d{{8,15}})", re.ASCII)
_FILE = re.compile(r"(\w[\w.-]{0,150})\.(png|csv|txt|wav)", re.ASCII)
_PNG, _IHDR = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\rIHDR"
_RETINA = 320  # pixels from which on a picture has two for each of the page
_TINY = 160  # of the page, to which smaller pictures grow


@dataclass(frozen=True)
class Shot:
    """One thing that one evaluation shows. `kind` is image, audio, table or text, `uri` of the first two."""

    step: int
    kind: str
    uri: str = ""
    width: int = 0
    height: int = 0
    tiny: bool = False
    rows: Sequence[Sequence[str]] = ()
    text: str = ""
    cut: bool = False


@dataclass
class ShownFiles:
    """`shots` by split, name of the thing and run, in the order of steps; `left_out` files by run."""

    shots: dict[str, dict[str, dict[str, list[Shot]]]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def groups(self, split: str) -> list[list[str]]:
        """Names of things that stand together: sound with the pictures that are called after it."""
        found = self.shots[split]
        sounds = [
            name for name, runs in found.items() if any(shot.kind == "audio" for s in runs.values() for shot in s)
        ]
        of = {name: next((s for s in sounds if name != s and name.startswith(f"{s}_")), name) for name in sorted(found)}
        return [[name for name in of if of[name] == first] for first in dict.fromkeys(of.values())]

    def steps(self, split: str) -> list[int]:
        return sorted({shot.step for runs in self.shots[split].values() for found in runs.values() for shot in found})


def shown_files(runs: Mapping[str, Path]) -> ShownFiles:
    """Of the folders of `runs` by name. The newest evaluation of each comes first into a page of `PAGE_BYTES`."""
    found, room = ShownFiles(), PAGE_BYTES
    for run, _, split, step, path in sorted(_listed(runs), key=lambda each: each[1]):
        name, shot = path.stem, None
        if room > 0:
            with suppress(OSError, ValueError, csv.Error):
                content = _read(path, min(room, _FILE_BYTES))
                shot = _shot(step, path.suffix, content)
                room -= len(content)
        if shot is None:
            found.left_out[run] = found.left_out.get(run, 0) + 1
        else:
            found.shots.setdefault(split, {}).setdefault(name, {}).setdefault(run, []).append(shot)
    for things in found.shots.values():
        for by_run in things.values():
            for shots in by_run.values():
                shots.sort(key=lambda shot: shot.step)
    return found


def _listed(runs: Mapping[str, Path]) -> Iterator[tuple[str, int, str, int, Path]]:
    """Run, turn, split, step and path of each file; in the first turn come the newest evaluations, in the second the first
    ones, then all others from the newest on."""
    for run, folder in runs.items():
        by_split: dict[str, list[tuple[int, Path]]] = {}
        for entry in entries(folder / names.SHOWN):
            if (match := _FOLDER.fullmatch(entry.name)) and entry.is_dir() and not entry.is_symlink():
                by_split.setdefault(match[1], []).append((int(match[2]), entry))
        for split, folders in by_split.items():
            newest = sorted(folders, reverse=True)
            ordered = [newest[0], *newest[-1:], *newest[1:-1]] if len(newest) > 1 else newest
            for turn, (step, entry) in enumerate(ordered[:_EVALUATIONS]):
                for path in entries(entry):
                    if _FILE.fullmatch(path.name):
                        yield run, turn, split, step, path


def _read(path: Path, most: int) -> bytes:
    """Raises OSError, ValueError for a file that is larger."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} is larger than {most} bytes")
    return content


def _shot(step: int, suffix: str, content: bytes) -> Shot:
    """Raises ValueError or csv.Error for what is not what its name says."""
    if suffix == ".png":
        return _image(step, content)
    if suffix == ".wav":
        if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
            raise ValueError("no WAV")
        return Shot(step, "audio", _uri("audio/wav", content))
    text = content.decode("utf-8", "replace")
    if suffix == ".txt":
        return Shot(step, "text", text=text[:_CHARACTERS], cut=len(text) > _CHARACTERS)
    rows = [[cell[:_CELL] for cell in row[:_COLUMNS]] for row in csv.reader(io.StringIO(text)) if row]
    return Shot(step, "table", rows=rows[: _ROWS + 1], cut=len(rows) > _ROWS + 1)


def _image(step: int, content: bytes) -> Shot:
    if content[:8] != _PNG or content[8:16] != _IHDR or len(content) < 45:
        raise ValueError("no PNG")
    width, height = struct.unpack(">II", content[16:24])
    if not (0 < width <= _SIDE and 0 < height <= _SIDE and width * height <= _PIXELS):
        raise ValueError("a PNG of too many pixels")
    size = width / 2 if width > _RETINA else float(width)
    tiny = max(width, height) < _TINY
    size = width * max(1, _TINY // max(width, height)) if tiny else size
    return Shot(step, "image", _uri("image/png", content), round(size), max(1, round(height * size / width)), tiny=tiny)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
