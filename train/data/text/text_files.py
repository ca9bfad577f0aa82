"""Text files of one's own, for a language model."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from phalanx.exit.codes import ConfigError

from ...prepared.cache import Cache, Output, Recipe
from .prepare_tokens import Source, TokenizerChoice, write_splits
from .token_file import TokenFile
from .windows import Tokens

TRAIN, HELD_OUT = "train", "held_out"
_VERSION = 1


class TextFiles(Tokens):
    """Windows (see Tokens) of text files, whose tokens are written to the cache once.

    `files` and `held_out` are files, folders, of which all *.txt below are meant, or patterns such as books/*.md; a list
    is taken in its order, a folder by names. `split` is train, of `files`, or held_out.

    `tokenizer` is `bytes`; `bpe`, byte pairs learned from `files`, as many tokens as `vocabulary` says; or the path of a
    tokenizer.json or of a folder that has one. `separator` is text that ends each file, such as <|endoftext|>.
    """

    def __init__(
        self,
        split: str,
        files: str | Sequence[str],
        held_out: str | Sequence[str],
        length: int,
        tokenizer: str,
        vocabulary: int | None,
        separator: str,
        encoding: str,
        cache: Cache,
        context: int = 0,
    ) -> None:
        """Raises ConfigError where a file lacks, is empty, or is not in `encoding`."""
        check_split(split)
        choice = TokenizerChoice(tokenizer, vocabulary)
        choice.check()
        texts = {TRAIN: _found(files, "files"), HELD_OUT: _found(held_out, HELD_OUT)}
        if both := sorted({*texts[TRAIN]} & {*texts[HELD_OUT]}):
            raise ConfigError(f"{both[0]} is among both files and held_out. Take it out of one of them")
        facts = [
            [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths] for paths in texts.values()
        ]
        splits = {name: [_source(path, encoding) for path in paths] for name, paths in texts.items() if paths}

        def write(_: Sequence[Path], output: Output) -> None:
            write_splits(splits, choice, separator, output)

        options = {"files": facts, "tokenizer": choice.facts(), "separator": separator, "encoding": encoding}
        folder = cache.prepared(Recipe("text", _VERSION, (), write, options), False)
        if not texts[split]:
            raise ConfigError(f"split={split} has no files. Type data.train.{HELD_OUT}= with text files, or a folder")
        self._set_up(TokenFile(folder / f"{split}.bin"), length, context)


def check_split(split: str) -> None:
    """Raise ConfigError for another split than the two."""
    if split not in (TRAIN, HELD_OUT):
        raise ConfigError(f"There is no split {split!r}. Type split={TRAIN} or split={HELD_OUT}")


def _source(path: Path, encoding: str) -> Source:
    return Source(str(path), cast(Callable[[], BinaryIO], partial(path.open, "rb")), encoding)


def _found(given: str | Sequence[str], key: str) -> list[Path]:
    paths: list[Path] = []
    for name in [given] if isinstance(given, str) else given:
        path = Path(name).expanduser().absolute()
        if path.is_dir():
            below = sorted(found for found in path.rglob("*.txt") if found.is_file())
        elif any(letter in name for letter in "*?["):
            below = sorted(
                found for found in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if found.is_file()
            )
        else:
            below = [path]
        if not below or not below[0].is_file():
            what = "a folder without any *.txt" if path.is_dir() else "nothing that is there"
            raise ConfigError(
                f"{key}={name} is {what}. Type a text file, a folder of *.txt, or a pattern as books/*.md"
            )
        paths += below
    if empty := [path for path in paths if path.stat().st_size == 0]:
        raise ConfigError(f"{empty[0]} is empty. Take it out of {key}, or bring its text back")
    return paths
