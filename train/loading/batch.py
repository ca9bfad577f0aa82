"""The structure of a batch: tensors, NumPy arrays and whatever else, in tuples, lists, dicts and dataclasses."""

import copy
from abc import ABC, abstractmethod
from collections import UserList, deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import PackedSequence

from .rng import Draws

Batch = Any
_TOLD = 6  # tensors of a batch that a message lists


class Augment(ABC):
    """A random augmentation of a training batch. All random numbers come from `draws`, seeded by sample position."""

    @abstractmethod
    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """The changed batch, in a structure of the same kind.

        A class whose method has a further parameter `partners`, `positions` or `whole` gets that, too: see `Asked` in
        asked.py.
        """


def apply(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The same structure with every tensor changed; arrays of numbers become tensors first.

    It goes through dicts and other mappings, lists, tuples, named tuples and dataclasses, and keeps their classes.
    Anything else, such as a string, a PIL image or None, is left to `change.other`, where `change` has such a method, and
    else stays as it is.
    """
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, np.ndarray):
        found = as_tensor(batch)
        return batch if found is None else change(found)
    if type(batch) is dict:
        return {name: apply(value, change) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return _named_tuple(batch, change)
    if type(batch) is list or isinstance(batch, tuple):
        return type(batch)(apply(value, change) for value in batch)
    if batch is None or isinstance(batch, str | bytes | int | float):
        return batch
    return _applied_to_object(batch, change)


def has_rows(batch: Batch, samples: int) -> bool:
    """Whether the batch has tensors, each with a row a sample."""
    rows: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        rows.append(len(tensor) if tensor.dim() else 0)
        return tensor

    apply(batch, count)
    return bool(rows) and set(rows) == {samples}


def as_tensor(array: NDArray[Any]) -> torch.Tensor | None:
    """A tensor of the array's numbers, which shares its memory where that can be; None for strings and objects."""
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError:  # no dtype of torch
        return None
    except ValueError:  # negative strides, or the byte order of another machine
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


def _named_tuple(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    if isinstance(batch, PackedSequence):  # its batch_sizes are to stay on the CPU
        return type(batch)(apply(batch.data, change), batch.batch_sizes, *(apply(part, change) for part in batch[2:]))
    return type(batch)(*(apply(value, change) for value in batch))


def _applied_to_object(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """Of mappings, lists and dataclasses of other classes a copy, with what they hold changed."""
    if isinstance(batch, Mapping):
        return _mapping(batch, {name: apply(value, change) for name, value in batch.items()})
    if isinstance(batch, list | UserList | deque):
        clone = copy.copy(batch)
        for i, value in enumerate(batch):
            clone[i] = apply(value, change)
        return clone
    if is_dataclass(batch) and not isinstance(batch, type):
        same = copy.copy(batch)
        for entry in fields(batch):
            if hasattr(batch, entry.name):
                object.__setattr__(same, entry.name, apply(getattr(batch, entry.name), change))
        return same
    other: Callable[[Any], Any] | None = getattr(change, "other", None)
    return batch if other is None else other(batch)


def _mapping(batch: Mapping[Any, Any], changed: dict[Any, Any]) -> Batch:
    if not isinstance(batch, MutableMapping):
        return type(batch)(changed)  # type: ignore[call-arg]
    clone = copy.copy(batch)
    for name, value in changed.items():
        clone[name] = value
    return clone


def shapes(batch: Batch) -> str:
    """Shapes and dtypes of a batch, such as "(64, 1, 28, 28) float32, (64,) int64", cut where it is long."""
    told: list[str] = []

    def tell(tensor: torch.Tensor) -> torch.Tensor:
        told.append(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}")
        return tensor

    apply(batch, tell)
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return ", ".join(told[:_TOLD]) + more if told else f"a {type(batch).__name__}"
