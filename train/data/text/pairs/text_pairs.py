"""Pairs of texts that say the same in two languages: from files of one's own, and what such sets share."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

from ....prepared.cache import Cache, Output, Recipe
from ..table import read_lines, read_rows
from ..tokens.byte_pairs import OF_PAIRS, learn
from ..tokens.file_tokenizer import FileTokenizer
from ..tokens.sequences import Sequences
from ..tokens.tokenizer import FILE as TOKENIZER

_NAMES = ("source", "target")
Pair = tuple[str, str]


class Pairs(Dataset[dict[str, Any]]):
    """Tokens of sources and of targets, the latter between begin and end, and the targets as text.

    A batch is a dict of `source` (b, s) and `target` (b, t) of int64, 0 at their ends for padding, and `reference`, b
    texts. Of both the first `longest` tokens are taken. `lengths` are for `phalanx.samplers.Buckets`.
    """

    def __init__(self, pairs: Sequence[Pair], tokenizer: Path, longest: int) -> None:
        if longest < 1:
            raise ConfigError(f"longest={longest} leaves nothing of a text. Type the most tokens of one, such as 128")
        self._tokens = FileTokenizer(tokenizer)
        begin, end = (self._tokens.special(*names) for names in (("<s>", "[CLS]"), ("</s>", "[SEP]")))
        if begin is None or end is None or self._tokens.padding:
            raise ConfigError(
                f"{tokenizer} needs tokens of begin (<s> or [CLS]) and end (</s> or [SEP]), and 0 as that of padding"
            )
        self.begin, self.end, self._longest = begin, end, longest
        sources = self._tokens.encode([source for source, _ in pairs])
        targets = self._tokens.encode([target for _, target in pairs], framed=False)
        first, last = np.array([begin], np.int32), np.array([end], np.int32)
        self._sources = Sequences(sources, longest)
        self._targets = Sequences([np.concatenate([first, each[:longest], last]) for each in targets], longest + 2)
        self._references = [target for _, target in pairs]
        self.lengths = self._sources.lengths + self._targets.lengths
        facts = ["\n".join(f"{source}\t{target}" for source, target in pairs), self._tokens.fingerprint(), str(longest)]
        self._fingerprint = hashlib.sha256("\0".join(facts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, target = self._sources[index], self._targets[index]
        return {"source": source, "target": target, "reference": self._references[index]}

    def __getitems__(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
        return {
            "source": self._sources.padded(indices, 0),
            "target": self._targets.padded(indices, 0),
            "reference": [self._references[index] for index in np.asarray(indices).tolist()],
        }

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Sources (b, s), as in a batch."""
        return Sequences(self._tokens.encode(texts), self._longest).padded(range(len(texts)), 0)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without those of begin, end and padding."""
        kept = [token for token in tokens if token not in (0, self.begin, self.end)]
        return self._tokens.decode(kept, special=False).strip()

    def fingerprint(self) -> str:
        """SHA-256 in hex over texts and what tokens depend on."""
        return self._fingerprint

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a text, for exports."""
        return {**self._tokens.preprocessing(), "length": self._longest}


class TextPairs(Pairs):
    """Pairs of one's own: two plain files of equally many lines, or one table (see TextTable) with two columns.

    `source` and `target` are two paths, or with `file` the names of its columns. `tokenizer` is the path of a
    tokenizer.json, or a number: so many byte pairs are trained on these texts, once, into the cache. A set to evaluate on
    reads texts as the training set does: `tokenizer_of` has that one's source, target, file and encoding.
    """

    def __init__(
        self,
        source: str,
        target: str,
        tokenizer: int | str,
        longest: int,
        cache: Cache,
        file: str | None = None,
        encoding: str = "utf-8",
        tokenizer_of: dict[str, Any] | None = None,
    ) -> None:
        pairs = read_pairs(source, target, file, encoding)
        if isinstance(tokenizer, str):
            super().__init__(pairs, Path(tokenizer), longest)
            return
        of = tokenizer_of or {"source": source, "target": target, "file": file, "encoding": encoding}
        names = [of["file"]] if of.get("file") else [of["source"], of["target"]]
        options = {"size": tokenizer, "of": [sha256(Path(name)) for name in names if Path(name).is_file()]}
        write = functools.partial(_write_tokenizer, of, tokenizer)
        folder = cache.prepared(Recipe("byte_pairs", 1, (), write, options), download=False)
        super().__init__(pairs, folder / TOKENIZER, longest)


def read_pairs(source: str, target: str, file: str | None, encoding: str) -> list[Pair]:
    """Raises ConfigError that names file and line."""
    if file is not None:
        found = [(f"{file}, line {line}", *cells) for line, cells in read_rows(file, (source, target), encoding)]
    else:
        sources, targets = (read_lines(name, encoding) for name in (source, target))
        if len(sources) != len(targets):
            raise ConfigError(
                f"{source} has {len(sources)} lines and {target} {len(targets)}: line "
                f"{min(len(sources), len(targets)) + 1} has no partner. Give them equally many"
            )
        found = [
            (f"{source} and {target}, line {line}", *pair)
            for line, pair in enumerate(zip(sources, targets, strict=True), 1)
        ]
    for where, *pair in found:
        if not all(text.strip() for text in pair):
            side = _NAMES[0 if not pair[0].strip() else 1]
            raise ConfigError(f"{where}: the {side} has no text. Take the line out, on both sides")
    return [(first, second) for _, first, second in found]


def _write_tokenizer(of: dict[str, Any], size: int, files: Sequence[Path], out: Output) -> None:
    pairs = read_pairs(of["source"], of["target"], of.get("file"), of.get("encoding", "utf-8"))
    with out.file(TOKENIZER) as path:
        write_tokenizer(pairs, size, path)


def write_tokenizer(pairs: Sequence[Pair], size: int, path: Path) -> None:
    """Byte pairs of both sides of `pairs`."""
    learn((text for pair in pairs for text in pair), size, path, special=OF_PAIRS, prefix_space=True)


def write_pairs(out: Output, name: str, pairs: Sequence[Pair]) -> None:
    out.text(name, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))


def read_prepared(path: Path) -> list[Pair]:
    found = (json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line)
    return [(source, target) for source, target in found]
