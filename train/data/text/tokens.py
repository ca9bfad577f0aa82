"""Tokens of texts: bytes, or those of a tokenizer file of Hugging Face's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

from .tokenizer import BYTES, tokenizers_library


class Tokens(Protocol):
    """Text to tokens and back. `padding` is what fills a batch up, and no text has."""

    padding: int
    size: int  # tokens are 0 to size - 1

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def fingerprint(self) -> str:
        """What the tokens depend on."""
        ...

    def preprocessing(self) -> dict[str, Any]:
        """What exports need to make tokens of a text."""
        ...


class Bytes:
    """The bytes of a text in UTF-8. 0 is padding."""

    padding, size = 0, 256

    def __init__(self, lower: bool) -> None:
        self._lower = lower

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [
            np.frombuffer((text.lower() if self._lower else text).encode(), np.uint8).astype(np.int32) for text in texts
        ]

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token).decode("utf-8", "replace")

    def fingerprint(self) -> str:
        return f"bytes-{self._lower}"

    def preprocessing(self) -> dict[str, Any]:
        return {"kind": "text", "tokenizer": "bytes", "lower": self._lower, "padding": self.padding}


class TokenizerFile:
    """A tokenizer.json, as Hugging Face's tokenizers and transformers write it. Needs the package tokenizers.

    Padding is its token <pad>, [PAD] or <|endoftext|>, whichever there is first.
    """

    def __init__(self, file: Path, lower: bool = False) -> None:
        """Raises ConfigError."""
        library = tokenizers_library(
            f"{file} is read by the package tokenizers, which is not installed. Type: pip install 'phalanx[translation]'"
        )
        if not file.is_file():
            raise ConfigError(f"tokenizer={file} is no file. Type tokenizer=bytes, or the path of a tokenizer.json")
        try:
            self._tokenizer: Any = library.Tokenizer.from_file(str(file))
        except Exception as error:  # of a class of its own
            raise ConfigError(f"{file} is no tokenizer of Hugging Face's: {error}. Type the path of one") from None
        self._file, self._lower = file, lower
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        padding = self.special("<pad>", "[PAD]", "<|endoftext|>")
        if padding is None:
            raise ConfigError(
                f"{file} has no token <pad>, [PAD] or <|endoftext|> to fill batches up with. Add one of them"
            )
        self.padding: int = padding
        self.size: int = self._tokenizer.get_vocab_size()

    def special(self, *names: str) -> int | None:
        """The first of these tokens that there is."""
        found = (self._tokenizer.token_to_id(name) for name in names)
        return next((token for token in found if token is not None), None)

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        texts = [text.lower() for text in texts] if self._lower else list(texts)
        return [np.array(found.ids, np.int32) for found in self._tokenizer.encode_batch(texts)]

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens))
        return text.strip()

    def fingerprint(self) -> str:
        return f"{sha256(self._file)}-{self._lower}"

    def preprocessing(self) -> dict[str, Any]:
        return {
            "kind": "text",
            "tokenizer": "file",
            "file": str(self._file),
            "lower": self._lower,
            "padding": self.padding,
        }


def tokens_of(tokenizer: str, lower: bool) -> Tokens:
    """`bytes`, or the path of a tokenizer.json. Raises ConfigError."""
    return Bytes(lower) if tokenizer == BYTES else TokenizerFile(Path(tokenizer), lower)


class Sequences:
    """Token sequences of any lengths, in one array: one indexing operation a batch."""

    def __init__(self, sequences: Sequence[NDArray[np.int32]], longest: int) -> None:
        """Of each the first `longest` tokens."""
        cut = [sequence[:longest] for sequence in sequences]
        self.lengths = np.array([len(sequence) for sequence in cut], np.int64)
        self._starts = np.concatenate([[0], self.lengths.cumsum()])
        self._flat = np.concatenate([*cut, np.empty(0, np.int32)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> torch.Tensor:
        start = self._starts[index]
        return torch.from_numpy(self._flat[start : start + self.lengths[index]].astype(np.int64))

    def padded(self, indices: Sequence[int] | NDArray[np.int64], padding: int) -> torch.Tensor:
        """The sequences (b, t) of int64, filled up at their ends to the longest of them, to one at least."""
        where = np.asarray(indices, np.int64)
        lengths = self.lengths[where]
        steps = np.arange(max(1, int(lengths.max(initial=0))))
        there = steps < lengths[:, None]
        places = np.where(there, self._starts[where][:, None] + steps, 0)
        found = self._flat[places] if len(self._flat) else np.zeros(places.shape, np.int32)
        return torch.from_numpy(np.where(there, found, padding).astype(np.int64))
