"""Make token files of texts, once: in parts, so that what a kill has left is gone on with."""

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

from ...prepared.cache import Output
from .token_file import write_token_file
from .tokens.byte_pairs import learn
from .tokens.file_tokenizer import FileTokenizer
from .tokens.tokenizer import BYTES, FILE, ByteTokenizer, Tokenizer

LEARNED = "bpe"
_CHUNK = 1 << 20  # bytes of text, up to the end of a line, that become tokens at once
_CHUNKS = 32  # of a part
_MARK = "\ufeff"  # that some editors begin a file with


@dataclass(frozen=True)
class Source:
    """A text: what messages call it, and what opens it."""

    name: str
    open: Callable[[], BinaryIO]
    encoding: str = "utf-8"


@dataclass(frozen=True)
class TokenizerChoice:
    """`bytes`; `bpe`, learned from the training texts, with a `vocabulary`; or a tokenizer.json, or its folder."""

    name: str
    vocabulary: int | None

    def check(self) -> None:
        """Raise ConfigError for a vocabulary where it is not learned, or none where it is."""
        if (self.name == LEARNED) != (self.vocabulary is not None):
            raise ConfigError(
                f"tokenizer={self.name} comes with vocabulary={self.vocabulary}. It is chosen where it is learned: type "
                f"tokenizer={LEARNED} and vocabulary=1024, or tokenizer={BYTES} and vocabulary=null"
            )

    def facts(self) -> Any:
        """What the tokens depend on; of a file its hash."""
        if self.name in (BYTES, LEARNED):
            return [self.name, self.vocabulary]
        return [sha256(self._file())]

    def _file(self) -> Path:
        path = Path(self.name).expanduser()
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(
                f"tokenizer={self.name} is neither {BYTES} nor {LEARNED}, and there is no file {path}. Type the path of a "
                f"{FILE}, or of a folder with one: transformers.AutoTokenizer.from_pretrained(…).save_pretrained(folder)"
            )
        return path

    def made(self, texts: Sequence[Source], output: Output) -> Tokenizer:
        """The tokenizer, with its file among those of the output."""
        if self.name == BYTES:
            return ByteTokenizer()
        if not output.has(FILE):
            with output.file(FILE) as path:
                if self.name == LEARNED:
                    assert self.vocabulary is not None
                    chunks = (chunk for source in texts for chunk in _chunks(source, ""))
                    learn(chunks, self.vocabulary, path, prefix_space=False)
                else:
                    path.write_bytes(self._file().read_bytes())
        return FileTokenizer(output.folder / FILE)


def write_splits(
    splits: Mapping[str, Sequence[Source]], choice: TokenizerChoice, separator: str, output: Output
) -> None:
    """Write SPLIT.bin and SPLIT.json for each of `splits`; a tokenizer is learned from the first. Raises ConfigError.

    `separator` is text that stands after each of the texts, such as <|endoftext|>.
    """
    tokenizer = choice.made(next(iter(splits.values())), output)
    for split, sources in splits.items():
        if output.has(f"{split}.json"):
            continue
        parts = [
            output.folder / part
            for number, source in enumerate(sources)
            for part in _parts(f"{split}_{number:05}", source, separator, tokenizer, output)
        ]
        name = BYTES if isinstance(tokenizer, ByteTokenizer) else FILE
        arrays = (np.load(part, allow_pickle=False) for part in parts)
        with output.file(f"{split}.bin") as path:
            header = write_token_file(path, arrays, tokenizer.vocabulary, name, tokenizer.token_bytes)
        output.json(f"{split}.json", header)
    for left in output.folder.glob("*.part.npy"):
        left.unlink()


def _parts(begins: str, source: Source, separator: str, tokenizer: Tokenizer, output: Output) -> Iterator[str]:
    """The names of files with the tokens of a text, in order; each is made unless it is there."""
    chunks, number, more = _chunks(source, separator), 0, True
    while more:
        texts = [chunk for _, chunk in zip(range(_CHUNKS), chunks, strict=False)]
        more = len(texts) == _CHUNKS
        if not texts:
            return
        name = f"{begins}_{number:05}.part"
        if not output.has(f"{name}.npy"):
            tokens: NDArray[Any] = np.concatenate([np.zeros(0, np.int32), *tokenizer.encode_pieces(texts)])
            output.array(name, tokens)
        yield f"{name}.npy"
        number += 1


def _chunks(source: Source, separator: str) -> Iterator[str]:
    """The text in pieces of whole lines, without a byte order mark, and `separator`.

    Raises ConfigError with the line that is wrong.
    """
    try:
        decoder = codecs.getincrementaldecoder(source.encoding)()
    except LookupError:
        raise ConfigError(f"encoding={source.encoding} is none that Python knows. Type utf-8, or latin-1") from None
    line, begins, more = 1, True, True
    with source.open() as file:
        while more:
            lines = file.readlines(_CHUNK)
            more = bool(lines)
            try:
                text = decoder.decode(b"".join(lines), final=not more)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                raise ConfigError(
                    f"{source.name}, line {line}: byte {error.object[error.start]:#04x} is no {source.encoding}. Save the "
                    "file as UTF-8, or type encoding= with what it is in, such as latin-1"
                ) from None
            line += len(lines)
            if text:
                yield text.removeprefix(_MARK) if begins else text
                begins = False
    if separator:
        yield separator
