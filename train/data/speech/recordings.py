"""Clips as a data set: samples and tokens, put together as log-mel features."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...prepared.cache import fingerprint
from .alphabet import Alphabet
from .clips import Clips
from .log_mel import LogMel

Sample = tuple[torch.Tensor, torch.Tensor]


class Recordings(Dataset[Sample]):
    """Clips with transcripts. A sample is (samples, tokens): int16 (n,), and int64 (characters,) from 1 on.

    A batch is a dict of `features` (b, frames, mels), `lengths` (b,) in frames, `tokens` (b, characters) with zeros beyond
    each text, `token_lengths` (b,). `lengths` of the data set are of its clips, in samples, and `texts` their transcripts.
    """

    def __init__(self, folder: Path, features: LogMel, alphabet: str, chosen: Sequence[int] | None = None) -> None:
        """`chosen`: these clips of the prepared folder, in this order; by default all.

        Raises ConfigError where a text has a character that is not in the alphabet, or the features are of another rate.
        """
        self._clips = Clips(folder)
        self._chosen = np.arange(len(self._clips)) if chosen is None else np.asarray(chosen, np.int64)
        self.features = features
        self.alphabet = Alphabet(alphabet)
        self.lengths = self._clips.lengths[self._chosen]
        self.texts = [self._clips.texts[index] for index in self._chosen]
        if features.sample_rate != self._clips.rate:
            raise ConfigError(
                f"The clips have {self._clips.rate} samples a second, and features.sample_rate={features.sample_rate}. "
                "Type the same for both"
            )
        self._tokens = [self._encoded(index) for index in self._chosen.tolist()]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Sample:
        return torch.from_numpy(np.array(self._clips.samples(int(self._chosen[index])))), self._tokens[index]

    def collate(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        waves, tokens = [wave for wave, _ in samples], [text for _, text in samples]
        longest = pad_sequence(waves, batch_first=True).float() / 32768
        features, lengths = self.features(longest, torch.tensor([len(wave) for wave in waves]))
        return {
            **{"features": features, "lengths": lengths, "tokens": pad_sequence(tokens, batch_first=True)},
            "token_lengths": torch.tensor([len(text) for text in tokens]),
        }

    def fingerprint(self) -> str:
        """Of the prepared files, and of which clips these are."""
        digest = hashlib.sha256(fingerprint(self._clips.folder).encode())
        digest.update(self._chosen.tobytes())
        return digest.hexdigest()

    def preprocessing(self) -> Mapping[str, Any]:
        """What makes the model's input of a sound."""
        rate = self._clips.rate
        return {
            "features": {"kind": "audio", "sample_rate": rate, "samples": None, "features": self.features.arguments},
            "lengths": {"kind": "length", "of": "features"},
        }

    def _encoded(self, index: int) -> torch.Tensor:
        text = self._clips.texts[index]
        try:
            return torch.tensor(self.alphabet.encode(text))
        except KeyError as error:
            raise ConfigError(
                f"{self._clips.origins[index]}: {text!r} has the character {error.args[0]!r}, which is not in "
                f"alphabet={self.alphabet.characters!r}. Type an alphabet with it, or write the text without"
            ) from None
