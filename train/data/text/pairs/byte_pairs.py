"""Byte-pair tokens (Sennrich, Haddow & Birch 2016) that are trained on given texts."""

from collections.abc import Sequence
from pathlib import Path

from phalanx.exit.codes import ConfigError

from ..tokenizer import byte_pairs, tokenizers_library

_SPECIAL = ["<pad>", "<s>", "</s>"]  # tokens 0, 1 and 2
_FEWEST = 256 + len(_SPECIAL)


def train_tokenizer(texts: Sequence[str], size: int, path: Path) -> None:
    """Write a tokenizer.json of `size` tokens, bytes among them, so that any text has tokens. Same texts, same file."""
    library = tokenizers_library(
        "Byte pairs are trained by the package tokenizers, which is not installed. Type: pip install 'phalanx[translation]'"
    )
    if size < _FEWEST:
        raise ConfigError(
            f"tokenizer={size} leaves no room for bytes. Type a number of at least {_FEWEST}, such as 4000"
        )
    tokenizer = byte_pairs(library, texts, size, _SPECIAL, prefix_space=True)
    path.write_text(tokenizer.to_str(), encoding="utf-8")
