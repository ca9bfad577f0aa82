"""Read a manifest: which recordings there are, and what is said in each."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.exit.codes import ConfigError

_COLUMNS = ("path", "text")


@dataclass(frozen=True)
class Entry:
    """A recording and its transcript, as line `line` of the manifest says it; the path is relative to the manifest's."""

    path: str
    text: str
    line: int


def read_manifest(file: Path) -> list[Entry]:
    """The recordings of a manifest, in its order.

    A .jsonl file has an object a line with `path` and `text`; any other is a table of columns separated by tabs, whose
    first line names them, `path` and `text` among them. UTF-8. Raises ConfigError that names file and line.
    """
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}. Name a manifest with a recording and its text a line"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}, line {line}: this is not UTF-8 ({error.reason}). Save the file as UTF-8") from None
    rows = _objects(file, content) if file.suffix in (".jsonl", ".json") else _table(file, content)
    entries = [_entry(file, line, row) for line, row in rows]
    if not entries:
        raise ConfigError(f"{file} names no recording. Write a line for each: its path and what is said in it")
    return entries


def _objects(file: Path, content: str) -> Iterator[tuple[int, Any]]:
    for line, text in enumerate(content.split("\n"), 1):
        if text.strip():
            try:
                yield line, json.loads(text)
            except json.JSONDecodeError as error:
                raise ConfigError(
                    f'{file}, line {line}: no JSON ({error.msg}). Write {{"path": "a.wav", "text": "what is said"}}'
                ) from None


def _table(file: Path, content: str) -> Iterator[tuple[int, Any]]:
    rows = csv.reader(content.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    head = next(rows, [])
    if missing := [name for name in _COLUMNS if name not in head]:
        raise ConfigError(
            f"{file}, line 1: its columns are {', '.join(head) or 'none'}, and {missing[0]} is not among them. Name them "
            "in the first line, separated by tabs: path, text"
        )
    for line, row in enumerate(rows, 2):
        if row and len(row) != len(head):
            raise ConfigError(
                f"{file}, line {line}: {len(row)} columns, and the first line names {len(head)}. Separate them by tabs"
            )
        if row:
            yield line, dict(zip(head, row, strict=True))


def _entry(file: Path, line: int, row: Any) -> Entry:
    def column(name: str) -> str:
        value = row.get(name) if isinstance(row, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{file}, line {line}: no {name}. Write {name} as it is, or take the line out")
        return value

    return Entry(column("path"), " ".join(column("text").split()), line)
