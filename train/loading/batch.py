"""The structure of a batch: a tensor or NumPy array, or tuples, lists and dicts of them; collation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.collate import collate, default_collate_fn_map

from .rng import Draws

Batch = Any
_TOLD = 6  # tensors of a batch that a message lists


class Augment(ABC):
    """A random augmentation of a training batch. All random numbers come from `draws`, seeded by sample position."""

    @abstractmethod
    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        """The changed batch, in a structure of the same kind."""


def apply(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The same structure with every tensor changed; arrays become tensors first."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, np.ndarray):
        return change(torch.from_numpy(batch))
    if isinstance(batch, dict):
        return {name: apply(value, change) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(apply(value, change) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(apply(value, change) for value in batch)
    return batch


def shapes(batch: Batch) -> str:
    """Shapes and dtypes of a batch, such as "(64, 1, 28, 28) float32, (64,) int64", cut where it is long."""
    told: list[str] = []

    def tell(tensor: torch.Tensor) -> torch.Tensor:
        told.append(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}")
        return tensor

    apply(batch, tell)
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return ", ".join(told[:_TOLD]) + more if told else f"a {type(batch).__name__}"


def collate_samples(samples: Sequence[Any]) -> Batch:
    """torch's default collation, but never into shared memory, in a worker neither: see tensor_packing.py."""
    return collate(samples, collate_fn_map=_COLLATE)


def _stacked(tensors: Sequence[torch.Tensor], *, collate_fn_map: object) -> torch.Tensor:
    return torch.stack(tuple(tensors))


def _numbers(numbers: Sequence[int], *, collate_fn_map: object) -> torch.Tensor:
    """By NumPy, which converts a list of integers in a quarter of torch's time; other values go to torch."""
    found = np.array(numbers)
    return torch.from_numpy(found) if found.dtype == np.int64 else torch.tensor(numbers)


def _columns(samples: Sequence[tuple[Any, ...]], *, collate_fn_map: object) -> Batch:
    """Tuples, without torch's two extra passes. A namedtuple keeps its type, others become lists."""
    try:
        columns = list(zip(*samples, strict=True))
    except ValueError:
        raise RuntimeError("each element in list of batch should be of equal size") from None
    kind, found = type(samples[0]), [collate_samples(column) for column in columns]
    return kind(*found) if hasattr(kind, "_fields") else found


_COLLATE: dict[type | tuple[type, ...], Callable[..., Any]] = {
    **default_collate_fn_map,
    torch.Tensor: _stacked,
    int: _numbers,
    tuple: _columns,
}
