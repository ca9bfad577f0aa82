"""Speech synthesis: from text to log-mel features, and from these to sound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...data.speech.alphabet import ENGLISH, Alphabet
from ...data.speech.log_mel import LogMel
from ...loading.batch import Batch, shapes
from ...loading.padding_mask import padding_mask
from ...sinks.shown import Audio, Shown
from ..drawing.attention import attention
from ..drawing.spectrogram import spectrogram
from ..model_answer import told
from ..task import Ratio, Task
from .griffin_lim import griffin_lim
from .time_warping import time_warped_cost

_PARTS = ("tokens", "token_lengths", "features", "lengths")
_HEARD = 4  # clips that are made sound of in an evaluation, at most


class TextToMel(Task):
    """Features of speech in logarithms of `features`, which are not normalized; a batch is as of CTC.

    The model is called with tokens, their lengths, features and their lengths, and answers with a dict of `mel` (b, frames,
    mels), frame by frame what was recorded; with tokens and lengths alone it speaks, and answers with `mel` and `lengths`.
    Further entries are losses where they are there: `prior` (b, frames, mels), a first guess; `log_durations` (b, tokens)
    with `durations`, in frames; `stop` (b, frames), the logit that a frame is the last. `alignment` is the token of each
    frame (b, frames), or weights (b, frames, tokens), and is shown.

    `loss` is a sum a frame: `l1`, the mean absolute error over mels, and, each by its weight, the mean square of the
    prior's error, the square of the error of log durations a token, and the cross entropy of `stop`. In evaluations
    `mel_error` is that of what the model speaks by itself, warped in time to what was recorded (`time_warping.py`): the
    mean absolute difference over mels along the path.
    """

    counts_data = True
    predicts = "text"

    def __init__(
        self,
        features: LogMel,
        alphabet: str = ENGLISH,
        prior_weight: float = 0.5,
        duration_weight: float = 0.1,
        stop_weight: float = 0.1,
    ) -> None:
        if features.normalize:
            raise ConfigError(
                "task.features.normalize=true takes each clip's loudness away, and no sound can be made of the rest. Type "
                "normalize=false for the features of data and task"
            )
        self._features = features
        self._alphabet = Alphabet(alphabet, "task.alphabet")
        self._weights = {"prior": prior_weight, "duration": duration_weight, "stop": stop_weight}

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        tokens, token_lengths, features, lengths = self._parts(batch)
        answer = self._answer(model(tokens, token_lengths, features, lengths), features)
        sums = self._sums(answer, features, lengths, token_lengths)
        frames = lengths.sum()
        total = torch.stack([self._weights.get(name, 1.0) * loss for name, loss in sums.items()]).sum()
        ratios = {"loss": Ratio(total, frames)}
        ratios |= {name: Ratio(loss.detach(), frames) for name, loss in sums.items()}
        return ratios if model.training else {**ratios, "mel_error": self._mel_error(model, batch)}

    def predictions(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The text, and how long it is spoken, in seconds."""
        tokens, token_lengths, *_ = self._parts(batch)
        seconds = (model(tokens, token_lengths)["lengths"] - 1) * self._features.hop / self._features.sample_rate
        return [
            {"text": text, "prediction": length}
            for text, length in zip(self._alphabet.texts(tokens, token_lengths), seconds.tolist(), strict=True)
        ]

    def predict(self, model: nn.Module, raw: Sequence[str]) -> list[dict[str, Any]]:
        """How many seconds each text takes to be spoken, and its sound."""
        if empty := [text for text in raw if not text]:
            raise ConfigError(f"{empty[0]!r} holds nothing to speak. Give a word")
        rate = self._features.sample_rate
        return [
            {"prediction": len(sound) / rate, "sound": Audio(sound, rate)} for sound in self.speak(model, list(raw))
        ]

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        """What is said of texts, as spectrogram, sound and alignment, beside what was recorded."""
        parts = [part[: min(self.now.shown, _HEARD)] for part in self._parts(batch)]
        tokens, token_lengths, features, lengths = parts
        answer = model(tokens, token_lengths)
        found: dict[str, Shown] = {}
        for i, text in enumerate(self._alphabet.texts(tokens, token_lengths)):
            spoken, recorded = answer["mel"][i, : answer["lengths"][i]], features[i, : lengths[i]]
            panels = {"recorded": recorded.T, "spoken": spoken.T}
            rate, hop = self._features.sample_rate, self._features.hop
            found[f"said_{i}"] = Audio(griffin_lim(spoken, self._features).cpu(), rate)
            found[f"said_{i}_mel"] = spectrogram(panels, rate=rate, hop=hop, caption=text)
            if "alignment" in answer:
                weights = answer["alignment"][i, : answer["lengths"][i]]
                weights = F.one_hot(weights, len(tokens[i])).float() if weights.dim() == 1 else weights
                weights = weights[:, : token_lengths[i]]
                found[f"said_{i}_alignment"] = attention(weights.T, list(text), range(len(weights)), caption=text)
        return found

    def speak(self, model: nn.Module, texts: list[str]) -> list[torch.Tensor]:
        """The sound of each text, samples (n,) within -1 and 1 at the rate of the features. The model is in eval mode.

        Raises ConfigError for a character that the alphabet lacks.
        """
        try:
            rows = [torch.tensor(self._alphabet.encode(text)) for text in texts]
        except KeyError as error:
            raise ConfigError(f"{error.args[0]!r} is not in the alphabet {self._alphabet.characters!r}") from None
        device = next(model.parameters()).device
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        with torch.no_grad():
            answer = model(tokens, torch.tensor([len(row) for row in rows], device=device))
            mels = zip(answer["mel"], answer["lengths"].tolist(), strict=True)
            return [griffin_lim(mel[:length], self._features).cpu() for mel, length in mels]

    def check(self, dataset: Dataset[Any]) -> None:
        own = getattr(dataset, "alphabet", None)
        if isinstance(own, Alphabet) and own.characters != self._alphabet.characters:
            raise ConfigError(
                f"The data are written in alphabet={own.characters!r}, and task.alphabet={self._alphabet.characters!r}. "
                "Type the same for both"
            )
        features = getattr(dataset, "features", None)
        if isinstance(features, LogMel) and features.arguments != self._features.arguments:
            pairs = zip(features.arguments.items(), self._features.arguments.values(), strict=True)
            name, theirs, ours = next((name, one, other) for (name, one), other in pairs if one != other)
            raise ConfigError(
                f"data.train.features.{name}={theirs}, and task.features.{name}={ours}: no sound can be made of other "
                "features. Type task.features='${data.train.features}'"
            )

    def _sums(
        self,
        answer: Mapping[str, torch.Tensor],
        features: torch.Tensor,
        lengths: torch.Tensor,
        token_lengths: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """The losses, each a sum over the batch."""
        there = padding_mask(lengths, features.shape[1])
        sums = {"l1": _over(_full(answer["mel"] - features).abs().mean(2), there)}
        if "prior" in answer:
            sums["prior"] = _over(_full(answer["prior"] - features).square().mean(2), there)
        if "log_durations" in answer:
            logs = answer["durations"].clamp(min=1).to(torch.float32).log()
            told_tokens = padding_mask(token_lengths, logs.shape[1])
            sums["duration"] = _over((_full(answer["log_durations"]) - logs).square(), told_tokens)
        if "stop" in answer:
            last = torch.arange(features.shape[1], device=lengths.device) == lengths[:, None] - 1
            stop = _full(answer["stop"])
            entropy = F.binary_cross_entropy_with_logits(stop, last.to(stop.dtype), reduction="none")
            sums["stop"] = _over(entropy, there)
        return sums

    def _mel_error(self, model: nn.Module, batch: Batch) -> Ratio:
        tokens, token_lengths, features, lengths = self._parts(batch)
        answer = model(tokens, token_lengths)
        total, weight = 0.0, 0
        rows = zip(answer["mel"], answer["lengths"].tolist(), features, lengths.tolist(), strict=True)
        for spoken, frames, recorded, length in rows:
            total += mel_distance(spoken[:frames], recorded[:length])
            weight += frames + length
        return Ratio(torch.tensor(total, dtype=torch.float64, device=features.device), weight)

    def _parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        if isinstance(batch, Mapping) and all(isinstance(batch.get(name), torch.Tensor) for name in _PARTS):
            return batch["tokens"], batch["token_lengths"], batch["features"], batch["lengths"]
        raise ConfigError(
            f"This task's batches are dicts with {', '.join(_PARTS)}, and the data give {shapes(batch)} in a "
            f"{type(batch).__name__}. Return such a dict from a method collate(self, samples) of the data set"
        )

    def _answer(self, answer: Any, features: torch.Tensor) -> Mapping[str, torch.Tensor]:
        if not isinstance(answer, Mapping) or not isinstance(answer.get("mel"), torch.Tensor):
            raise ConfigError(
                f'The model answers with {told(answer)}, and this task wants a dict with the features as "mel". Return it '
                "from its forward"
            )
        if answer["mel"].shape != features.shape:
            raise ConfigError(
                f"The model answers with mel of shape {tuple(answer['mel'].shape)} for features of shape "
                f"{tuple(features.shape)}. Type model.mels={features.shape[2]}, and answer each recorded frame"
            )
        return answer


def mel_distance(spoken: torch.Tensor, recorded: torch.Tensor) -> float:
    """The sum of mean absolute differences over mels along the path that warps (n, mels) to (m, mels), of weight n + m."""
    costs = torch.cdist(spoken.detach().float().cpu(), recorded.float().cpu(), p=1) / spoken.shape[1]
    return time_warped_cost(np.asarray(costs))


def _full(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _over(values: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    return (values * there).sum()
