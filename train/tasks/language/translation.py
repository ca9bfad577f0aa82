"""Texts to texts: trained on given translations, evaluated by those that a beam search writes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...loading.batch import Batch, shapes
from ...sinks.shown import Image, Shown, Table
from ..metric import Update
from ..task import Ratio, Task
from .beam_search import Beam
from .bleu import Bleu, ChrF, scorer

_SHOWN = 20  # translations of an evaluation


class Translation(Task):
    """Cross entropy in nats a token of the target, given those before it; BLEU and chrF of what beam search writes.

    A batch is a dict of `source` (b, s) and `target` (b, t), padded with 0, the target between its tokens of begin and
    end, and `reference`, b texts, as `phalanx.data.TextPairs` gives them; the data set has `begin`, `end` and
    `decode(tokens)`. The model answers `(source, target)` with logits (b, t, vocabulary) of what follows each token, and
    writes by `start` and `next_logits`, as `phalanx.models.EncoderDecoder` does.

    `label_smoothing` is of training alone: the loss of an evaluation is without. `longest`: tokens of a translation.
    """

    counts_data: ClassVar[bool] = True
    predicts: ClassVar[str | None] = "text"

    def __init__(self, label_smoothing: float, beams: int, length_penalty: float, longest: int) -> None:
        if beams < 1 or longest < 1:
            raise ConfigError(f"task.beams={beams} and task.longest={longest} are at least 1 each")
        self._label_smoothing, self._longest = label_smoothing, longest
        self._beams, self._length_penalty = beams, length_penalty
        self._beam: Beam | None = None
        self._decode: Callable[[Sequence[int]], str] | None = None
        self._encode: Callable[[Sequence[str]], torch.Tensor] | None = None

    def check(self, dataset: Dataset[Any]) -> None:
        """Take from it what begins and ends a target, and how to read one."""
        scorer("BLEU")
        if not all(hasattr(dataset, name) for name in ("begin", "end", "decode")):
            raise ConfigError(
                f"This task reads translations by its data set's begin, end and decode(tokens), and a "
                f"{type(dataset).__name__} has not all of them. Take phalanx.data.TextPairs, or write them"
            )
        found: Any = dataset
        self._beam = Beam(self._beams, self._length_penalty, found.begin, found.end)
        self._decode, self._encode = found.decode, getattr(found, "encode", None)

    def metrics(self) -> Mapping[str, Any]:
        return {"bleu": Bleu(), "chrf": ChrF()}

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        source, target = self._parts(batch)
        given, wanted = target[:, :-1], target[:, 1:]
        logits = model(source, given)
        counted = wanted != 0
        losses = F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(),
            reduction="sum",
            ignore_index=0,
            label_smoothing=self._label_smoothing if model.training else 0.0,
        )
        right = ((logits.argmax(2) == wanted) & counted).sum()
        ratios: dict[str, Any] = {"loss": Ratio(losses, counted.sum()), "accuracy": Ratio(right, counted.sum())}
        if not model.training:
            ratios["bleu"] = ratios["chrf"] = Update(self._translated(model, source), list(batch["reference"]))
        return ratios

    def predictions(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The translation of each source, and the reference."""
        found = self._translated(model, self._parts(batch)[0])
        return [
            {"prediction": text, "reference": wanted} for text, wanted in zip(found, batch["reference"], strict=True)
        ]

    def predict(self, model: nn.Module, raw: Sequence[str]) -> list[dict[str, Any]]:
        """The translation of each text."""
        if self._encode is None:
            raise ConfigError(
                "Texts are translated by the data set's encode(texts), which gives tokens (b, s), and it has none. Write it"
            )
        source = self._encode(raw).to(next(model.parameters()).device)
        return [{"prediction": text} for text in self._translated(model, source)]

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        """Some sources with their references and translations, and what the first one looks at while it is written."""
        source, target = (part[:_SHOWN] for part in self._parts(batch))
        texts = [self._text(tokens) for tokens in source.tolist()]
        rows = list(zip(texts, batch["reference"], self._translated(model, source), strict=False))
        shown: dict[str, Shown] = {"translations": Table(["source", "reference", "translation"], rows)}
        align: Any = getattr(model, "alignment", None)
        if align is not None:
            aligned = align(source[:1], target[:1, :-1])[0]
            sizes = (int((target[0, 1:] != 0).sum()), int((source[0] != 0).sum()))
            shown["attention"] = _alignment(aligned[: sizes[0], : sizes[1]], texts[0], rows[0][1])
        return shown

    def _parts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        if not isinstance(batch, Mapping) or not {"source", "target", "reference"} <= set(batch):
            raise ConfigError(
                f"This task's batches are dicts of source, target and reference, and the data give {shapes(batch)} in a "
                f"{type(batch).__name__}. Take phalanx.data.TextPairs, or type task._target_= and a task of your own"
            )
        return batch["source"], batch["target"]

    def _translated(self, model: Any, source: torch.Tensor) -> list[str]:
        assert self._beam is not None, "check() comes first"
        if not hasattr(model, "next_logits"):
            raise ConfigError(
                f"A {type(model).__name__} cannot write: it has no start and next_logits, as phalanx.models.EncoderDecoder "
                "has them. Give it both, or type task._target_= and a task of your own"
            )
        return [self._text(tokens) for tokens in self._beam(model, source, self._longest)]

    def _text(self, tokens: Sequence[int]) -> str:
        assert self._decode is not None, "check() comes first"
        return self._decode(tokens)


def _alignment(weights: torch.Tensor, source: str, target: str) -> Image:
    """A row a token of the target, a column a token of the source, white where it is looked at; 8 pixels each."""
    pixels = weights.float().clamp(0, 1).repeat_interleave(8, 0).repeat_interleave(8, 1)
    return Image(pixels, caption=f"rows: {target}; columns: {source}")
