"""Speech recognition by connectionist temporal classification."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...data.speech.alphabet import ENGLISH, Alphabet
from ...loading.batch import Batch, shapes
from ...sinks.shown import Shown
from ..drawing.spectrogram import spectrogram
from ..drawing.texts import texts
from ..task import Ratio, Task
from .ctc_decoding import Decoded, beam_search, best_path
from .edit_distance import edit_distance

_PARTS = ("features", "lengths", "tokens", "token_lengths")
_WEIGHTINGS = ("utterances", "tokens")


class CTC(Task):
    """The CTC loss (Graves et al. 2006) in nats, and in evaluations word and character error rates as `wer` and `cer`.

    A batch is a dict of `features` (b, frames, mels), `lengths` (b,) in frames, `tokens` (b, characters) from 1 on and
    `token_lengths` (b,), or a tuple of these. The model is called with features and lengths, and answers with logits (b,
    frames, characters + 1), the blank first, and the lengths of these.

    `weighting`: the loss is divided by `utterances`, or by `tokens`, so that a long text counts for more, of those that
    can be aligned. Both rates are
    edits over the words, or characters, of all transcripts. `beam`: prefixes kept in decoding; 1 takes the best path.
    `unalignable` is the share of clips with fewer frames than their text needs, which no model can be trained on: they are
    left out of the loss and of what it is divided by.
    """

    counts_data = True

    def __init__(self, alphabet: str = ENGLISH, weighting: str = "utterances", beam: int = 1) -> None:
        if weighting not in _WEIGHTINGS:
            raise ConfigError(f"task.weighting={weighting} is unknown. Type one of {', '.join(_WEIGHTINGS)}")
        if beam < 1:
            raise ConfigError(f"task.beam={beam} keeps nothing. Type 1 for the best path, or more")
        self._alphabet = Alphabet(alphabet, "task.alphabet")
        self._by_token = weighting == "tokens"
        self._beam = beam

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        features, lengths, tokens, token_lengths = self._parts(batch)
        logs, frames = self._answer(model, features, lengths)
        losses = F.ctc_loss(logs.transpose(0, 1), tokens, frames, token_lengths, reduction="none", zero_infinity=True)
        inside = torch.arange(1, tokens.shape[1], device=tokens.device) < token_lengths[:, None]
        needed = token_lengths + ((tokens[:, 1:] == tokens[:, :-1]) & inside).sum(1)
        fits = needed <= frames
        count = (token_lengths * fits).sum() if self._by_token else fits.sum()
        ratios = {"loss": Ratio(losses.sum(), count), "unalignable": Ratio((~fits).sum(), len(tokens))}
        return ratios if model.training else {**ratios, **self._error_rates(logs, frames, tokens, token_lengths)}

    def predictions(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The text, the probability of the decoded path or prefix as `score`, and what was said as `text`."""
        features, lengths, tokens, token_lengths = self._parts(batch)
        decoded = self._decoded(*self._answer(model, features, lengths))
        said = self._alphabet.texts(tokens, token_lengths)
        return [
            {"prediction": self._alphabet.decode(found), "score": math.exp(log), "text": text}
            for (found, log), text in zip(decoded, said, strict=True)
        ]

    def postprocessing(self) -> dict[str, Any]:
        return {"kind": "ctc", "alphabet": self._alphabet.characters}

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        """What was said and recognised, and of the first clip the features and the probability of each token a frame."""
        features, lengths, tokens, token_lengths = (part[: self.now.shown] for part in self._parts(batch))
        logs, frames = self._answer(model, features, lengths)
        found = [self._alphabet.decode(each) for each, _ in self._decoded(logs, frames)]
        said = self._alphabet.texts(tokens, token_lengths)
        panels = {"features": features[0, : lengths[0]].T, "tokens": logs[0, : frames[0]].exp().T}
        return {
            "transcripts": texts({"said": said, "recognised": found}),
            **{name: spectrogram(panel, caption=said[0]) for name, panel in panels.items()},
        }

    def check(self, dataset: Dataset[Any]) -> None:
        own = getattr(dataset, "alphabet", None)
        if isinstance(own, Alphabet) and own.characters != self._alphabet.characters:
            raise ConfigError(
                f"The data are written in alphabet={own.characters!r}, and task.alphabet={self._alphabet.characters!r}. "
                "Type the same for both"
            )

    def _parts(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        found = [batch.get(name) for name in _PARTS] if isinstance(batch, Mapping) else batch
        if (
            isinstance(found, list | tuple)
            and len(found) == 4
            and all(isinstance(each, torch.Tensor) for each in found)
        ):
            return tuple(found)
        raise ConfigError(
            f"This task's batches have {', '.join(_PARTS)}, and the data give {shapes(batch)} in a {type(batch).__name__}. "
            "Return a dict of these from a method collate(self, samples) of the data set"
        )

    def _answer(
        self, model: nn.Module, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities (b, frames, classes) in 32 bits or more, and the frames of each clip."""
        answer = model(features, lengths)
        if not isinstance(answer, list | tuple) or len(answer) != 2:
            raise ConfigError(
                f"The model answers with {shapes(answer)} in a {type(answer).__name__}, and this task wants logits and how "
                "many frames of each clip they are. Return (logits, lengths) from its forward"
            )
        logits, frames = answer
        if logits.shape[-1] != self._alphabet.classes:
            raise ConfigError(
                f"The model answers with {logits.shape[-1]} numbers a frame, and task.alphabet has "
                f"{self._alphabet.classes - 1} characters, and a blank. Type model.classes={self._alphabet.classes}"
            )
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1), frames

    def _error_rates(
        self, logs: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor, token_lengths: torch.Tensor
    ) -> dict[str, Ratio]:
        said = self._alphabet.texts(tokens, token_lengths)
        found = [self._alphabet.decode(each) for each, _ in self._decoded(logs, frames)]
        both = list(zip(said, found, strict=True))
        words = sum(edit_distance(one.split(), other.split()) for one, other in both)
        characters = sum(edit_distance(one, other) for one, other in both)
        ratio = {"wer": (words, sum(len(one.split()) for one in said)), "cer": (characters, sum(map(len, said)))}
        return {
            name: Ratio(torch.tensor(float(edits), device=logs.device), count) for name, (edits, count) in ratio.items()
        }

    def _decoded(self, logs: torch.Tensor, frames: torch.Tensor) -> list[Decoded]:
        host: NDArray[Any] = logs.detach().float().cpu().numpy()
        clips = [row[:count] for row, count in zip(host, frames.tolist(), strict=True)]
        return [best_path(clip) if self._beam == 1 else beam_search(clip, self._beam) for clip in clips]
