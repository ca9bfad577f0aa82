"""Texts, each with a class: from a table of one's own, and what such sets share."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.common.suggest import nearest
from phalanx.exit.codes import ConfigError

from .table import read_rows
from .tokens.sequences import Sequences
from .tokens.tokenizer import tokenizer_at


class LabelledTexts(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Tokens (t,) and the class of each text; a batch is (b, t), padded at its end, and (b,), both int64.

    `tokenizer` is bytes, or the path of a tokenizer.json of Hugging Face's; `longest` the most tokens of a text, which is
    cut there; `lower`: texts in small letters. `lengths` are for `phalanx.samplers.Buckets`. With `probabilities`
    (texts, classes) samples have a row of these in the place of the class.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[int],
        classes: Sequence[str],
        tokenizer: str,
        longest: int,
        lower: bool,
        probabilities: torch.Tensor | None = None,
    ) -> None:
        if longest < 1:
            raise ConfigError(f"longest={longest} leaves nothing of a text. Type the most tokens of one, such as 256")
        self._tokens = tokenizer_at(tokenizer, lower)
        self._padding = self._tokens.padding
        self._sequences, self._longest = Sequences(self._tokens.encode(texts), longest), longest
        self.classes = list(classes)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self._answers = self.labels if probabilities is None else probabilities
        self.lengths = self._sequences.lengths
        digest = hashlib.sha256("\0".join(texts).encode())
        digest.update(repr((list(labels), self.classes, self._tokens.fingerprint(), longest)).encode())
        if probabilities is not None:
            digest.update(probabilities.numpy().tobytes())
        self._fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._sequences[index], self._answers[index]

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self._sequences.padded(indices, self._padding)
        return tokens, self._answers.index_select(0, torch.as_tensor(np.asarray(indices)))

    def fingerprint(self) -> str:
        """SHA-256 in hex over texts, classes and what tokens depend on."""
        return self._fingerprint

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a text, for exports."""
        return {**self._tokens.preprocessing(), "length": self._longest}


class TextTable(LabelledTexts):
    """The texts of a .tsv, .csv, .jsonl or .parquet `file`, whose columns are called `text` and `label`.

    `classes` are the labels in the order of the model's answers; a row with another one, or a class without a row, is
    refused.
    """

    def __init__(
        self,
        file: str,
        classes: list[str],
        text: str = "text",
        label: str = "label",
        tokenizer: str = "bytes",
        longest: int = 512,
        lower: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        names = [str(name) for name in classes]
        if len(set(names)) < 2 or len(set(names)) < len(names):
            raise ConfigError(f"classes={names} are to be two or more different labels. Type those of {file}")
        texts, labels = [], []
        for line, (content, name) in read_rows(file, (text, label), encoding):
            if name not in names:
                raise ConfigError(
                    f"{file}, line {line}: the label {name!r} is none of classes={names}. {nearest(name, names)}Add it to "
                    "classes, or mend the line"
                )
            if not content.strip():
                raise ConfigError(f"{file}, line {line}: no text. Take the line out")
            texts.append(content)
            labels.append(names.index(name))
        if lacking := [name for i, name in enumerate(names) if i not in set(labels)]:
            raise ConfigError(f"{file}: no row has the label {lacking[0]!r} of classes={names}. Take it out of classes")
        super().__init__(texts, labels, names, tokenizer, longest, lower)
