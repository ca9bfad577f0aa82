"""A tokenizer.json, as Hugging Face's tokenizers and transformers write it."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

_PADDING = ("<pad>", "[PAD]", "<|endoftext|>")


class FileTokenizer:
    """The tokenizer of a file; with `lower` it reads texts in small letters. Needs the package tokenizers.

    Padding is its token <pad>, [PAD] or <|endoftext|>, whichever there is first.
    """

    def __init__(self, path: Path, lower: bool = False) -> None:
        """Raises ConfigError where the package is missing, or the file is none of a tokenizer."""
        made = tokenizers_library().Tokenizer
        if not path.is_file():
            raise ConfigError(
                f"tokenizer={path} is no file. Type tokenizer=bytes, or the path of a tokenizer.json: "
                "transformers.AutoTokenizer.from_pretrained(…).save_pretrained(folder) writes it"
            )
        try:
            self._tokenizer: Any = made.from_file(str(path))
        except Exception as error:  # the library raises its plain Exception
            raise ConfigError(f"{path} is no tokenizer of Hugging Face's: {error}. Type the path of one") from None
        self._path, self._lower = path, lower
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def vocabulary(self) -> int:
        numbers: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return 1 + max(numbers.values())

    @property
    def padding(self) -> int:
        found = self.special(*_PADDING)
        if found is None:
            raise ConfigError(
                f"{self._path} has no token {', '.join(_PADDING[:-1])} or {_PADDING[-1]} to fill batches up with. Add one "
                "of them"
            )
        return found

    @cached_property
    def token_bytes(self) -> list[int]:
        """Exact for byte-level tokenizers; of others a token is as long as it is spelt, SentencePiece's mark a space."""
        by_bytes = type(self._tokenizer.decoder).__name__ == "ByteLevel"
        special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        found = [0] * self.vocabulary
        for token, number in self._tokenizer.get_vocab(with_added_tokens=True).items():
            found[number] = len(token) if by_bytes and token not in special else _spelt(token)
        return found

    def special(self, *names: str) -> int | None:
        """The first of these tokens that there is."""
        found = (self._tokenizer.token_to_id(name) for name in names)
        return next((token for token in found if token is not None), None)

    def encode(self, texts: Sequence[str], *, framed: bool = True) -> list[NDArray[np.int32]]:
        """Text that reads like a special token, such as <s> of HTML, is text. `framed`: what is put around a text, too."""
        return self._encoded([text.lower() for text in texts] if self._lower else texts, framed, special_is_text=True)

    def encode_pieces(self, pieces: Sequence[str]) -> list[NDArray[np.int32]]:
        return self._encoded(pieces, framed=False, special_is_text=False)

    def decode(self, tokens: Iterable[int], *, special: bool = True) -> str:
        """The text of tokens; without those that are `special` where that is asked."""
        text: str = self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=not special)
        return text

    def fingerprint(self) -> str:
        return f"{sha256(self._path)}-{self._lower}"

    def preprocessing(self) -> dict[str, Any]:
        return {
            **{"kind": "text", "tokenizer": "file", "file": str(self._path)},
            **{"lower": self._lower, "padding": self.padding},
        }

    def _encoded(self, texts: Sequence[str], framed: bool, *, special_is_text: bool) -> list[NDArray[np.int32]]:
        self._tokenizer.encode_special_tokens = special_is_text
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=framed)
        return [np.array(each.ids, np.int32) for each in found]


def tokenizers_library() -> Any:
    """The package tokenizers with its parts. Raises ConfigError where it is not installed."""
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ConfigError(
            "Tokens other than bytes are made by the package tokenizers, which is not installed. Type: pip install "
            "'phalanx[data]', or tokenizer=bytes"
        ) from None
    return tokenizers


def _spelt(token: str) -> int:
    if token.startswith("<0x") and token.endswith(">"):  # a byte, as SentencePiece falls back to
        return 1
    return len(token.removeprefix("##").replace("\u2581", " ").encode())
