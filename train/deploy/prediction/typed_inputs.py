"""Inputs as they are typed: paths of pictures and sounds, texts, numbers, JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.exit.codes import ConfigError

from ...data.vision.files.image_files import SUFFIXES
from .raw_inputs import FILES

_SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
_NUMBERS = ("index", "number")


def expanded(typed: Sequence[str], kinds: Mapping[str, str]) -> list[str]:
    """The files of folders, in the order of their paths, where the model takes one picture or sound. Raises ConfigError."""
    found: list[str] = []
    for word in typed:
        if len(kinds) == 1 and next(iter(kinds.values())) in FILES and os.path.isdir(word):  # of any word, however long
            found_here = (path for path in Path(word).rglob("*") if path.suffix.lower() in (*SUFFIXES, *_SOUNDS))
            files = sorted(path for path in found_here if not path.is_dir())
            if not files:
                raise ConfigError(f"{word} holds no file of {', '.join((*SUFFIXES, *_SOUNDS))}. Type another folder")
            found += map(str, files)
        else:
            found.append(word)
    return found


def raw_of(word: str, kinds: Mapping[str, str]) -> Any:
    """The raw input that a word stands for. Raises ConfigError."""
    if len(kinds) == 1:
        return _value(word, next(iter(kinds.values())))
    if word.lstrip()[:1] in ("{", "["):
        values = _json(word)
        if isinstance(values, list):
            values = dict(zip(kinds, values, strict=False)) if len(values) == len(kinds) else values
        if isinstance(values, Mapping):
            return {name: _within(value, kinds.get(name)) for name, value in values.items()}
        return values
    if all(kind in _NUMBERS for kind in kinds.values()):
        return [part.strip() for part in word.split(",")]
    example = json.dumps(dict.fromkeys(kinds, "…"), ensure_ascii=False)
    raise ConfigError(
        f"this model takes {', '.join(f'{name} ({kind})' for name, kind in kinds.items())}: type {example}"
    )


def _within(value: Any, kind: str | None) -> Any:
    """A value of a JSON object, in which a file is a path."""
    return _value(value, kind) if kind in FILES and isinstance(value, str) else value


def _value(word: str, kind: str) -> Any:
    if kind in FILES:
        try:
            return Path(word).read_bytes()
        except OSError as error:
            raise ConfigError(f"it cannot be read: {error.strerror or error}") from None
    if kind == "tensor":
        return _array(word) if word.endswith(".npy") else _json(word)
    return word


def _array(word: str) -> Any:
    try:
        return np.load(os.fspath(word), allow_pickle=False)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"it is no array of numbers: {str(error).splitlines()[0]}") from None


def _json(word: str) -> Any:
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        raise ConfigError("it is no JSON, such as [0.5, 1.0], nor the path of a .npy file") from None
