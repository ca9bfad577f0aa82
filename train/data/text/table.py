"""Rows of tables (.tsv, .csv, .parquet), JSON lines (.jsonl) and plain lines, each error with its file and line."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from phalanx.common.suggest import nearest
from phalanx.exit.codes import ConfigError


class Row(NamedTuple):
    """The cells of the columns that were asked for, and the line that they begin in, counted from 1."""

    line: int
    cells: tuple[str, ...]


def read_rows(file: str, columns: Sequence[str], encoding: str = "utf-8") -> list[Row]:
    """The rows of a .tsv, .csv (both with a line of column names first), .jsonl or .parquet file.

    Empty lines are left out. A cell of a .tsv is what stands between two tabs; a .csv may quote cells. The lines of a
    .parquet file, which pyarrow reads, are its rows, from 1 on. Raises ConfigError
    that names file and line.
    """
    path = Path(file)
    readers = {".tsv": _delimited, ".csv": _delimited, ".jsonl": _json_lines}
    if path.suffix == ".parquet":
        rows = _parquet(path, columns)
    elif path.suffix in readers:
        rows = list(readers[path.suffix](path, _text(path, encoding), columns))
    else:
        raise ConfigError(
            f"{file} is no table: its name ends in {path.suffix!r}. Give a .tsv, .csv, .jsonl or .parquet file"
        )
    if not rows:
        raise ConfigError(f"{file} has no row. Give it one a sample")
    for line, cells in rows:
        for name, cell in zip(columns, cells, strict=True):
            if "\0" in cell or not _writable(cell):
                what = "a NUL character" if "\0" in cell else "half of a surrogate pair"
                raise ConfigError(f"{file}, line {line}: {name} has {what}, which no text has. Mend the line")
    return rows


def read_lines(file: str, encoding: str = "utf-8") -> list[str]:
    """The lines of a plain text file, without their ends. Raises ConfigError that names file and line."""
    return [line.removesuffix("\r") for line in _text(Path(file), encoding).removesuffix("\n").split("\n")]


def _text(path: Path, encoding: str) -> str:
    """The decoded file, without a byte order mark."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Type the path of the file") from None
    try:
        text = content.decode(encoding)
    except LookupError:
        raise ConfigError(
            f"encoding={encoding} is not known to Python. Type utf-8, latin-1, utf-16 or another"
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is no {encoding}. Type the file's encoding=, such as "
            "latin-1, or mend the line"
        ) from None
    if "\0" in text:
        raise ConfigError(
            f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL character, which no text has. Mend the "
            "file, or type its encoding=, such as utf-16"
        )
    return text.removeprefix("\ufeff")


def _delimited(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    tabs = path.suffix == ".tsv"
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ",", "strict": True}
    reader, begins = csv.reader(io.StringIO(text, newline=""), **options), 1  # type: ignore[arg-type]
    header: list[str] = []
    before = csv.field_size_limit(sys.maxsize)  # of the whole process
    try:
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not header:
                header = cells
                where = [_column(path, header, name) for name in columns]
            elif cells:
                if len(cells) != len(header):
                    raise ConfigError(
                        f"{path}, line {line}: {len(cells)} cells, and line 1 names {len(header)} columns "
                        f"({', '.join(header)}). Give it one a column"
                    )
                yield Row(line, tuple(cells[place] for place in where))
    except csv.Error as error:
        raise ConfigError(f"{path}, line {begins}: {error}. Mend the line") from None
    finally:
        csv.field_size_limit(before)


def _column(path: Path, header: Sequence[str], name: str) -> int:
    if name not in header:
        raise ConfigError(
            f"{path}, line 1: no column is called {name}. {nearest(name, header)}Its columns are {', '.join(header)}; type "
            "the name of one of them"
        )
    if header.count(name) > 1:
        raise ConfigError(
            f"{path}, line 1: {header.count(name)} columns are called {name}. Give each a name of its own"
        )
    return header.index(name)


def _json_lines(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {line}: no JSON ({error}). Mend the line") from None
        if not isinstance(found, dict):
            raise ConfigError(f"{path}, line {line}: no JSON object, but {content.strip()[:40]}. Mend the line")
        yield Row(line, tuple(_value(path, line, found, name) for name in columns))


def _value(path: Path, line: int, found: dict[str, object], name: str) -> str:
    if name not in found:
        raise ConfigError(
            f"{path}, line {line}: no key is called {name}. {nearest(name, list(found))}Its keys are {', '.join(found)}"
        )
    return _cell(path, line, name, found[name])


def _cell(path: Path, line: int, name: str, value: object) -> str:
    """Text and numbers as a .csv would have them."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(
            f"{path}, line {line}: {name} is {json.dumps(value, default=str)[:40]}, and no text or number"
        )
    return str(value)


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet(path: Path, columns: Sequence[str]) -> list[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path} is read by pyarrow, which is not installed. Type: pip install 'phalanx[data]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            for name in columns:
                _column(path, header, name)
            table = file.read(list(columns))
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}. Type the path of the file") from None
    cells = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    return [
        Row(line, tuple(_cell(path, line, name, value) for name, value in zip(columns, row, strict=True)))
        for line, row in enumerate(cells, 1)
    ]
