"""Call a model with a batch, and read what it answers: a tensor, a dict, a tuple, or an object such as a ModelOutput."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from ..loading.batch import Batch, shapes


def call(model: nn.Module, batch: Batch) -> Any:
    """The model's answer; a dict's items are arguments by keyword, a list's or a tuple's by position."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, list | tuple) else model(batch)


def logits_of(answer: Any) -> torch.Tensor:
    """The tensor of the answer that is named logits, or else comes first. Raises ConfigError where there is none."""
    if isinstance(answer, torch.Tensor):
        return answer
    for name in ("logits", "out", "output"):  # so models of transformers, torchvision and timm answer
        found = part(answer, name)
        if isinstance(found, torch.Tensor):
            return found
    first = answer[0] if isinstance(answer, list | tuple) and answer else None
    if isinstance(first, torch.Tensor):
        return first
    raise ConfigError(
        f"The model answers with {told(answer)}, and this task wants a tensor, or one under the name logits. Type "
        "task._target_= and a task of your own, which takes what the model gives"
    )


def part(answer: Any, name: str) -> Any:
    """What stands under a name in a dict, or as an attribute of an object; None where there is nothing."""
    if isinstance(answer, Mapping):
        return answer.get(name)
    return getattr(answer, name, None)


def told(answer: Any) -> str:
    """An answer in words, such as "a dict of loss, logits"."""
    if isinstance(answer, Mapping):
        return f"a {type(answer).__name__} of {', '.join(map(str, answer)) or 'nothing'}"
    if isinstance(answer, list | tuple | torch.Tensor):
        return f"a {type(answer).__name__} of {shapes(answer)}"
    return f"a {type(answer).__name__}"


def rows_of(batch: Batch) -> int:
    """How many samples a batch has: the length of its first part, a tensor or a list. Raises ConfigError."""
    parts = (
        list(batch.values()) if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else [batch]
    )
    first = parts[0] if parts else None
    if isinstance(first, list | tuple) or (isinstance(first, torch.Tensor) and first.dim()):
        return len(first)
    raise ConfigError(
        f"A batch is {told(batch)}, and nothing in it tells how many samples it has. Let its first part be a tensor or a "
        "list with one entry a sample"
    )
