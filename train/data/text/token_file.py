"""Token files: the tokens of one long text as uint16 or uint32, one after the other, and a JSON header beside."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.common.files import read_text
from phalanx.exit.codes import ConfigError

FORMAT = 1
_TYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_KEYS = {"format": int, "dtype": str, "tokens": int, "vocabulary": int, "tokenizer": str, "sha256": str}


class TokenFile:
    """A file of tokens, memory-mapped: only what is read of it comes into memory. Sent to another process as its header.

    `tokenizer` is `bytes`, the name of a tokenizer.json beside the file, or empty where nobody knows it any more.
    """

    def __init__(self, path: Path) -> None:
        """`path` is NAME.bin, whose header is NAME.json. Raises ConfigError where they do not fit each other."""
        self.path = path.absolute()
        header = _header(self.path)
        self.tokens: int = header["tokens"]
        self.vocabulary: int = header["vocabulary"]
        self.tokenizer: str = header["tokenizer"]
        self.sha256: str = header["sha256"]
        self.token_bytes: list[int] | None = header.get("token_bytes")
        self._dtype = _TYPES[header["dtype"]]
        self._mapped: NDArray[Any] | None = None
        _check_size(self.path, self.tokens, self._dtype)

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The tokens from each of `starts` (n,) on, (n, length). Raises ConfigError for one out of the vocabulary."""
        if self._mapped is None:
            self._mapped = np.memmap(self.path, self._dtype, "r", shape=(self.tokens,))
        found = np.lib.stride_tricks.sliding_window_view(self._mapped, length)[starts]
        if found.size and found.max() >= self.vocabulary:
            row, column = np.argwhere(found >= self.vocabulary)[0]
            raise ConfigError(
                f"{self.path} has the token {found[row, column]} at place {starts[row] + column}, the vocabulary of its "
                f"header is {self.vocabulary}. Set that to the tokenizer's, or prepare the file anew"
            )
        return found.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_mapped": None}


def write_token_file(
    path: Path, parts: Iterable[NDArray[Any]], vocabulary: int, tokenizer: str, token_bytes: list[int] | None
) -> dict[str, Any]:
    """Write the tokens of `parts` to `path`, and return its header, which write_header writes to NAME.json.

    uint16 where the vocabulary has room in it, else uint32. Raises ValueError for a token out of the vocabulary.
    """
    name = "uint16" if vocabulary <= 1 << 16 else "uint32"
    digest, count = hashlib.sha256(), 0
    with path.open("wb") as file:
        for part in parts:
            if part.size and int(part.max()) >= vocabulary:
                raise ValueError(f"token {int(part.max())} is out of the vocabulary of {vocabulary}")
            packed = part.astype(_TYPES[name]).tobytes()
            file.write(packed)
            digest.update(packed)
            count += part.size
    header = {"format": FORMAT, "dtype": name, "tokens": count, "vocabulary": vocabulary, "tokenizer": tokenizer}
    return {**header, "sha256": digest.hexdigest(), "token_bytes": token_bytes}


def _header(path: Path) -> dict[str, Any]:
    where = path.with_suffix(".json")
    header: dict[str, Any]
    example = json.dumps(
        {"format": FORMAT, "dtype": "uint16", "tokens": 1000, "vocabulary": 50257, "tokenizer": "", "sha256": "…"}
    )
    try:
        header = json.loads(read_text(where))
    except (OSError, ValueError, RecursionError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise ConfigError(f"{where}, the header of {path.name}, {why}. Write one, such as {example}") from None
    lacking = [key for key, kind in _KEYS.items() if not isinstance(header, dict) or type(header.get(key)) is not kind]
    if lacking:
        raise ConfigError(f"{where} has no {lacking[0]} that is {_KEYS[lacking[0]].__name__}. Write it as in {example}")
    if header["format"] != FORMAT:
        raise ConfigError(f"{where} is of format {header['format']}, and {FORMAT} is read here. Prepare the file anew")
    if header["dtype"] not in _TYPES:
        raise ConfigError(
            f"{where} says dtype {header['dtype']}, and tokens are {' or '.join(_TYPES)}. Write them as such"
        )
    lengths = header.get("token_bytes")
    whole = isinstance(lengths, list) and all(type(each) is int and each >= 0 for each in lengths)
    if lengths is not None and not (whole and len(lengths) == header["vocabulary"]):
        raise ConfigError(f"{where} has token_bytes that are not {header['vocabulary']} whole numbers. Leave them out")
    return header


def _check_size(path: Path, tokens: int, dtype: np.dtype[Any]) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Bring it back beside its header") from None
    if size != tokens * dtype.itemsize:
        raise ConfigError(
            f"{path} has {size} bytes, and {tokens} tokens of {dtype.name}, as its header says, are "
            f"{tokens * dtype.itemsize}: it is cut short, or of another type. Bring it back, or prepare it anew"
        )
