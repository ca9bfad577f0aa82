"""Windows of a token file: what a language model is trained on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from .token_file import TokenFile
from .tokens.tokenizer import tokenizer_of

_NOT_COUNTED = -100  # a target that no loss is of, as torch's cross entropy has it

Pair = tuple[torch.Tensor, torch.Tensor]


class Tokens(Dataset[Pair]):
    """Windows of `length` tokens, each with the token that follows every one of them: (tokens, targets), int64.

    Each token of the file but its first is a target once. With `context` the first tokens of a window are only looked back
    on, so that at least as many are before each target, for an evaluation; those and what the last window has of the one
    before it are -100 in the targets. Sample k is a function of k alone.
    """

    def __init__(self, file: str, length: int, context: int = 0) -> None:
        """`file` is NAME.bin, with its header NAME.json beside it. Raises ConfigError."""
        self._set_up(TokenFile(Path(file).expanduser()), length, context)

    def _set_up(self, file: TokenFile, length: int, context: int) -> None:
        if length < 1 or not 0 <= context < length:
            raise ConfigError(
                f"Windows of length={length} with context={context} leave no target. Type a smaller context"
            )
        if file.tokens < length + 1:
            raise ConfigError(
                f"{file.path} has {file.tokens} tokens, a window takes {length + 1}. Type a smaller length"
            )
        self._file, self._length, self._stride = file, length, length - context
        self._last = file.tokens - 1 - length  # where the last window begins
        self.token_bytes = file.token_bytes
        self.vocabulary = file.vocabulary

    def __len__(self) -> int:
        return 1 - (-self._last // self._stride)

    def __getitem__(self, index: int) -> Pair:
        tokens, targets = self.__getitems__(np.array([index]))
        return tokens[0], targets[0]

    def __getitems__(self, indices: NDArray[np.int64]) -> Pair:
        """The batch (b, length) twice."""
        numbers = np.asarray(indices)
        starts = np.minimum(numbers * self._stride, self._last)
        windows = torch.from_numpy(self._file.windows(starts, self._length + 1))
        tokens, targets = windows[:, :-1], windows[:, 1:]
        again = np.where(
            numbers > 0, (numbers - 1) * self._stride + self._length - starts, 0
        )  # targets of the one before
        if again.any():
            targets = targets.masked_fill(torch.arange(self._length) < torch.from_numpy(again)[:, None], _NOT_COUNTED)
        return tokens, targets

    def encode(self, text: str) -> torch.Tensor:
        """The tokens of a text (t,), int64. Raises ConfigError where the file does not tell its tokenizer."""
        if not self._file.tokenizer:
            raise ConfigError(
                f"{self._file.path} does not tell by which tokenizer texts become tokens. Name it in the file of its header"
            )
        (tokens,) = tokenizer_of(self._file.tokenizer, self._file.path.parent).encode_pieces([text])
        return torch.from_numpy(tokens.astype(np.int64))

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, or their numbers where the file does not tell its tokenizer. Raises ConfigError."""
        if not self._file.tokenizer:
            return " ".join(str(int(token)) for token in tokens)
        return tokenizer_of(self._file.tokenizer, self._file.path.parent).decode(tokens)

    def fingerprint(self) -> str:
        """The SHA-256 in hex of the tokens, as the header has it."""
        return self._file.sha256
