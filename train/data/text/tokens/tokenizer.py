"""What makes tokens of text and text of tokens: bytes, or a tokenizer of Hugging Face's in a file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

from .file_tokenizer import FileTokenizer

BYTES = "bytes"
FILE = "tokenizer.json"  # as Hugging Face's libraries call it in a folder


class Tokenizer(Protocol):
    """Tokens are 0 to `vocabulary` - 1."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def padding(self) -> int:
        """What fills a batch up, and no text has. Raises ConfigError where there is no such token."""
        ...

    @property
    def token_bytes(self) -> list[int]:
        """How many bytes of text in UTF-8 each token stands for, (vocabulary,)."""
        ...

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The tokens of texts, each whole: what a tokenizer puts around a text is there, such as [CLS] and [SEP]."""
        ...

    def encode_pieces(self, pieces: Sequence[str]) -> list[NDArray[np.int32]]:
        """The tokens of pieces of a long text. Nothing is added, and names such as <|endoftext|> become their tokens."""
        ...

    def decode(self, tokens: Iterable[int]) -> str: ...

    def fingerprint(self) -> str:
        """What the tokens depend on."""
        ...

    def preprocessing(self) -> dict[str, Any]:
        """What exports need to make tokens of a text."""
        ...


class ByteTokenizer:
    """The bytes of a text in UTF-8, 0 being padding; with `lower` in small letters.

    What has no meaning in UTF-8 is decoded as U+FFFD.
    """

    vocabulary, padding = 256, 0

    def __init__(self, lower: bool = False) -> None:
        self._lower = lower

    @property
    def token_bytes(self) -> list[int]:
        return [1] * self.vocabulary

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [
            np.frombuffer((text.lower() if self._lower else text).encode(), np.uint8).astype(np.int32) for text in texts
        ]

    def encode_pieces(self, pieces: Sequence[str]) -> list[NDArray[np.int32]]:
        return self.encode(pieces)

    def decode(self, tokens: Iterable[int]) -> str:
        return bytes(int(token) for token in tokens).decode("utf-8", "replace")

    def fingerprint(self) -> str:
        return f"bytes-{self._lower}"

    def preprocessing(self) -> dict[str, Any]:
        return {"kind": "text", "tokenizer": BYTES, "lower": self._lower, "padding": self.padding}


def tokenizer_at(name: str, lower: bool) -> Tokenizer:
    """`bytes`, or the path of a tokenizer.json. Raises ConfigError."""
    return ByteTokenizer(lower) if name == BYTES else FileTokenizer(Path(name).expanduser(), lower)


def tokenizer_of(name: str, folder: Path) -> Tokenizer:
    """The one that the header of a file in `folder` names: `bytes`, or a file beside it. Raises ConfigError."""
    if Path(name).name != name:
        raise ConfigError(
            f"{folder} names the tokenizer {name}, which does not lie in it. Put the file beside the tokens"
        )
    return tokenizer_at(name if name == BYTES else str(folder / name), lower=False)
