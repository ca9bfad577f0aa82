"""Read a manifest: which recordings there are, and what is said in each."""

from dataclasses import dataclass
from pathlib import Path

from phalanx.exit.codes import ConfigError

from ..text.table import read_rows

_COLUMNS = ("path", "text")


@dataclass(frozen=True)
class Entry:
    """A recording and its transcript, as line `line` of the manifest says it; the path is relative to the manifest's."""

    path: str
    text: str
    line: int


def read_manifest(file: Path) -> list[Entry]:
    """The recordings of a manifest, in its order: a table (see read_rows) with the columns `path` and `text`, in UTF-8.

    Raises ConfigError that names file and line.
    """
    return [_entry(file, line, *cells) for line, cells in read_rows(str(file), _COLUMNS)]


def _entry(file: Path, line: int, path: str, text: str) -> Entry:
    for name, value in zip(_COLUMNS, (path, text), strict=True):
        if not value.strip():
            raise ConfigError(f"{file}, line {line}: no {name}. Write {name} as it is, or take the line out")
    return Entry(path, " ".join(text.split()), line)
