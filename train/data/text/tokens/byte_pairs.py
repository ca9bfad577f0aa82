"""Byte pairs (Sennrich, Haddow & Birch 2016) that are learned from given texts: of bytes and within words, as GPT-2's."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from phalanx.exit.codes import ConfigError

from .file_tokenizer import tokenizers_library

OF_PAIRS = ("<pad>", "<s>", "</s>")  # tokens 0, 1 and 2 of texts with their translations
_BYTES = 256


def learn(texts: Iterable[str], size: int, path: Path, *, special: Sequence[str] = (), prefix_space: bool) -> None:
    """Write a tokenizer.json of `size` tokens, `special` ones first, bytes among them, so that any text has tokens.

    `prefix_space`: a text's first word has the tokens that it has elsewhere. The same texts give the same file. Raises
    ConfigError.
    """
    library = tokenizers_library()
    if size <= _BYTES + len(special):
        raise ConfigError(
            f"{size} tokens leave no room for pairs beside {', '.join(['the 256 bytes', *special])}. Type a larger number, "
            "such as 4000"
        )
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
    tokenizer.save(str(path))
