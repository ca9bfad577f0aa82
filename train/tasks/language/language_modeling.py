"""The token that follows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ...loading.batch import Batch, shapes
from ...sinks.shown import Shown
from ..drawing.attention import attention
from ..drawing.texts import texts
from ..model_answer import logits_of
from ..task import Ratio, Sum, Task

NOT_COUNTED = -100  # a target that no loss is of, as torch's cross entropy has it
_DRAWN = 48  # tokens of a picture of attention
_LARGEST = 700.0  # nats of which a float64 has the exponential


class LanguageModeling(Task):
    """Cross entropy in nats a token. A batch is (tokens, targets), both (b, t): the token that follows each, or -100.

    The model answers tokens with logits (b, t, vocabulary). Beside the loss are `perplexity`, exp of it, and, of data sets
    with an attribute `token_bytes`, how many bytes of text each token of the vocabulary stands for, `bits_per_byte`.

    What is shown is how the model goes on with the first `prompt` tokens of some samples, `new` tokens drawn at
    `temperature` from the `top_k` likeliest, and what each head of its last block attends to in the first one. It takes a
    model with methods `generate` and `attention_maps`, as phalanx.models.GPT has, and a data set with `decode(tokens)`.
    """

    counts_data = True
    predicts = "text"

    def __init__(self, prompt: int, new: int, temperature: float, top_k: int | None) -> None:
        if prompt < 1 or new < 0 or temperature < 0 or (top_k is not None and top_k < 1):
            raise ConfigError("task.prompt and task.top_k are at least 1, task.new and task.temperature at least 0")
        self._prompt, self._new, self._temperature, self._top_k = prompt, new, temperature, top_k
        self._token_bytes: torch.Tensor | None = None
        self._decode: Callable[[Any], str] | None = None
        self._encode: Callable[[str], torch.Tensor] | None = None
        self._looked_at: set[bool] = set()  # whether in training, of the batches that were looked at

    def ratios(self, model: nn.Module, batch: Batch) -> dict[str, Ratio]:
        tokens, targets = self._pair(batch)
        logits = logits_of(model(tokens))
        if model.training not in self._looked_at:
            self._looked_at.add(model.training)
            _check_logits(logits, targets)
        wide = torch.promote_types(logits.dtype, torch.float32)  # a sum over thousands of tokens wants it
        total = F.cross_entropy(logits.flatten(0, 1).to(wide), targets.flatten(), reduction="sum")
        counted = targets != NOT_COUNTED
        ratios = {"loss": Ratio(total, counted.sum())}
        if (lengths := self._lengths(targets.device)) is not None:
            of_text = lengths[targets.clamp(min=0)] * counted
            ratios["bits_per_byte"] = Ratio(total.detach() / math.log(2), of_text.sum())
        return ratios

    def derive(self, sums: Mapping[str, Sum]) -> dict[str, float]:
        loss = sums["loss"].mean
        return {"perplexity": math.exp(loss) if loss < _LARGEST else math.inf}

    def predict(self, model: nn.Module, raw: Sequence[str]) -> list[dict[str, Any]]:
        """How the model goes on with each text: `new` tokens, drawn as for what is shown."""
        generate: Any = getattr(model, "generate", None)
        if self._encode is None or self._decode is None or not callable(generate):
            raise ConfigError(
                "To go on with a text takes a data set with encode(text) and decode(tokens), and a model with generate, as "
                "phalanx.data.Tokens and phalanx.models.GPT have them. Write them, or take these"
            )
        found = []
        for text in raw:
            if not text:
                raise ConfigError("A text without a character has nothing to go on from. Give a first word")
            tokens = self._encode(text)[None].to(next(model.parameters()).device)
            whole = generate(tokens, self._new, self._temperature, self._top_k)
            found.append({"prediction": self._decode(whole[0, tokens.shape[1] :].cpu())})
        return found

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        tokens, _ = self._pair(batch)
        shown: dict[str, Shown] = {}
        if self._decode is None or not self.now.shown:
            return shown
        prompts = tokens[: self.now.shown, : self._prompt]
        generate, attention_maps = getattr(model, "generate", None), getattr(model, "attention_maps", None)
        if callable(generate) and self._new:
            found = generate(prompts, self._new, self._temperature, self._top_k)
            said = [self._decode(row[prompts.shape[1] :]) for row in found.cpu()]
            columns = {"prompt": [self._decode(row) for row in prompts.cpu()], "continued": said}
            shown["continued"] = texts(columns, limit=self.now.shown)
        if callable(attention_maps):
            first = tokens[:1, :_DRAWN]
            names = [self._decode(first[0, place : place + 1].cpu()) for place in range(first.shape[1])]
            shown["attention"] = attention(attention_maps(first)[-1, 0], names, caption="the last block")
        return shown

    def check(self, dataset: Dataset[Any]) -> None:
        self._decode = self._decode or getattr(dataset, "decode", None)
        self._encode = self._encode or getattr(dataset, "encode", None)
        lengths = getattr(dataset, "token_bytes", None)
        if lengths is None:
            return
        lengths = torch.as_tensor(lengths, dtype=torch.int64)
        if self._token_bytes is not None and not torch.equal(lengths, self._token_bytes.cpu()):
            raise ConfigError(
                f"Two data sets have tokens that stand for different texts ({len(self._token_bytes)} and {len(lengths)} of "
                "them). Make the tokens of data.train and data.eval by one tokenizer"
            )
        self._token_bytes = lengths

    def _lengths(self, device: torch.device) -> torch.Tensor | None:
        if self._token_bytes is not None and self._token_bytes.device != device:
            self._token_bytes = self._token_bytes.to(device)  # once a run
        return self._token_bytes

    @staticmethod
    def _pair(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        if (
            isinstance(batch, list | tuple)
            and len(batch) == 2
            and all(isinstance(part, torch.Tensor) for part in batch)
        ):
            tokens, targets = batch
            if tokens.dim() == 2 and tokens.shape == targets.shape and not targets.dtype.is_floating_point:
                return tokens, targets.long()
        raise ConfigError(
            f"This task's batches are pairs (tokens, targets) of whole numbers (samples, length), and the data give "
            f"{shapes(batch)} in a {type(batch).__name__}. Return (window[:-1], window[1:]) from __getitem__, "
            "as phalanx.data.Tokens does; where the model computes its loss itself type task=model_loss"
        )


def _check_logits(logits: torch.Tensor, targets: torch.Tensor) -> None:
    """A target without a place in the logits would be found by an assertion in a GPU kernel, which names nothing."""
    if logits.dim() != 3 or logits.shape[:2] != targets.shape:
        raise ConfigError(
            f"The model answers tokens {tuple(targets.shape)} with {tuple(logits.shape)}, and this task wants logits "
            f"{(*targets.shape, 'vocabulary')}. Take a model that answers for each token"
        )
    counted = targets[targets != NOT_COUNTED]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
    if low < 0 or high >= logits.shape[2]:
        raise ConfigError(
            f"The data have tokens from {low} to {high}, and the model has logits for 0 to {logits.shape[2] - 1}. "
            f"Type model.vocabulary={high + 1}, or that of the tokenizer, which may be larger"
        )
