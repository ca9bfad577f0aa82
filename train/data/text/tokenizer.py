"""What makes tokens of text for a language model: its bytes, or a tokenizer of Hugging Face's in a file."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phalanx.exit.codes import ConfigError

BYTES = "bytes"
FILE = "tokenizer.json"  # as Hugging Face's libraries call it in a folder
_NEEDS = (
    "The tokens are those of a Hugging Face tokenizer, which needs the package tokenizers. Type: pip install "
    "'phalanx[data]', or tokenizer=bytes"
)


class Tokenizer(Protocol):
    """Tokens are 0 to `vocabulary` - 1."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def token_bytes(self) -> list[int]:
        """How many bytes of text in UTF-8 each token stands for, (vocabulary,)."""
        ...

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]: ...

    def decode(self, tokens: Iterable[int]) -> str: ...


class ByteTokenizer:
    """The bytes of a text in UTF-8. Text without a meaning in UTF-8 is decoded with U+FFFD in its place."""

    vocabulary = 256

    @property
    def token_bytes(self) -> list[int]:
        return [1] * self.vocabulary

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint32) for text in texts]

    def decode(self, tokens: Iterable[int]) -> str:
        return bytes(int(token) for token in tokens).decode("utf-8", "replace")


class FileTokenizer:
    """A tokenizer.json. Text of special tokens, such as <|endoftext|>, becomes these; none is added. Needs tokenizers."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the package is missing, or the file is none of a tokenizer."""
        made = tokenizers_library(_NEEDS).Tokenizer
        if not path.is_file():
            raise ConfigError(
                f"{path} is not there. Name a {FILE}, or a folder that has one: "
                "transformers.AutoTokenizer.from_pretrained(…).save_pretrained(folder) writes it"
            )
        try:
            self._tokenizer: Any = made.from_file(str(path))
        except Exception as error:  # the library raises its plain Exception
            raise ConfigError(f"{path} is no file of a tokenizer: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def vocabulary(self) -> int:
        numbers: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        return 1 + max(numbers.values())

    @cached_property
    def token_bytes(self) -> list[int]:
        """Exact for byte-level tokenizers; of others a token is as long as it is spelt, SentencePiece's mark a space."""
        by_bytes = type(self._tokenizer.decoder).__name__ == "ByteLevel"
        special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        found = [0] * self.vocabulary
        for token, number in self._tokenizer.get_vocab(with_added_tokens=True).items():
            found[number] = len(token) if by_bytes and token not in special else _spelt(token)
        return found

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.uint32) for each in encoded]

    def decode(self, tokens: Iterable[int]) -> str:
        text: str = self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False)
        return text


def learn(texts: Iterable[str], vocabulary: int, path: Path) -> None:
    """Learn byte pairs (Sennrich et al. 2016; of bytes and within words, as GPT-2's), and write their tokenizer.json.

    The vocabulary has the 256 bytes, so that there is a token for any text. Raises ConfigError.
    """
    library = tokenizers_library(_NEEDS)
    if vocabulary < 257:
        raise ConfigError(f"A vocabulary of {vocabulary} has no room for pairs beside the 256 bytes. Type 512, or more")
    byte_pairs(library, texts, vocabulary, special=(), prefix_space=False).save(str(path))


def byte_pairs(library: Any, texts: Iterable[str], size: int, special: Sequence[str], *, prefix_space: bool) -> Any:
    """A tokenizer of `size` tokens, `special` ones first, bytes among them, so that any text has tokens.

    `prefix_space`: a text's first word has the tokens that it has elsewhere. The same texts give the same tokenizer.
    """
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_of(name: str, folder: Path) -> Tokenizer:
    """The one that the header of a file in `folder` names: `bytes`, or a file beside it. Raises ConfigError."""
    if name == BYTES:
        return ByteTokenizer()
    if Path(name).name != name:
        raise ConfigError(
            f"{folder} names the tokenizer {name}, which does not lie in it. Put the file beside the tokens"
        )
    return FileTokenizer(folder / name)


def _spelt(token: str) -> int:
    if token.startswith("<0x") and token.endswith(">"):  # a byte, as SentencePiece falls back to
        return 1
    return len(token.removeprefix("##").replace("\u2581", " ").encode())


def tokenizers_library(needs: str) -> Any:
    """The package tokenizers with its parts. Raises ConfigError with `needs` where it is not installed."""
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ConfigError(needs) from None
    return tokenizers
