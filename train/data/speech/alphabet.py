"""Characters as tokens: 0 is what stands for none of them, the blank of CTC and the padding of a batch."""

from collections.abc import Sequence

import torch

from phalanx.exit.codes import ConfigError

ENGLISH = " abcdefghijklmnopqrstuvwxyz'"


class Alphabet:
    """The characters that transcripts are written in; the token of each is its place, counted from 1."""

    def __init__(self, characters: str, where: str = "alphabet") -> None:
        """Raises ConfigError, naming `where`, for none, or for one that comes twice."""
        if not characters or len(set(characters)) < len(characters):
            twice = next((each for each in characters if characters.count(each) > 1), None)
            why = "is empty" if twice is None else f"has {twice!r} twice"
            raise ConfigError(f"{where}={characters!r} {why}. Type each character of the transcripts once")
        self.characters = characters
        self._tokens = {character: token for token, character in enumerate(characters, 1)}

    @property
    def classes(self) -> int:
        """The tokens with the blank: what a model answers each frame with."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Raises KeyError with the character that is none of these."""
        return [self._tokens[character] for character in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; the blank stands for nothing."""
        return "".join(self.characters[token - 1] for token in tokens if token)

    def texts(self, tokens: torch.Tensor, lengths: torch.Tensor) -> list[str]:
        """The texts of a batch: of each row (b, longest) the first `lengths` (b,) tokens."""
        rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
        return [self.decode(row[:length]) for row, length in rows]
