"""Byte-pair tokens (Sennrich, Haddow & Birch 2016) that are trained on given texts."""

from collections.abc import Sequence
from pathlib import Path

from phalanx.exit.codes import ConfigError

TOKENIZER = "tokenizer.json"
_SPECIAL = ["<pad>", "<s>", "</s>"]  # tokens 0, 1 and 2
_FEWEST = 256 + len(_SPECIAL)


def train_tokenizer(texts: Sequence[str], size: int, path: Path) -> None:
    """Write a tokenizer.json of `size` tokens, bytes among them, so that any text has tokens. Same texts, same file."""
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise ConfigError(
            "Byte pairs are trained by the package tokenizers, which is not installed. "
            "Type: pip install 'phalanx[translation]'"
        ) from None
    if size < _FEWEST:
        raise ConfigError(
            f"tokenizer={size} leaves no room for bytes. Type a number of at least {_FEWEST}, such as 4000"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    path.write_text(tokenizer.to_str(), encoding="utf-8")
