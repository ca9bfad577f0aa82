"""What a batch is: a tensor or NumPy array, or tuples, lists and dicts of them, first dimension samples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.collate import collate, default_collate_fn_map

Batch = Any


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


def collated(samples: list[Any]) -> Batch:
    """torch's default collation, but in a worker, too, into memory of the process: see parcel.py."""
    return collate(samples, collate_fn_map=_COLLATE)


def _stacked(tensors: list[torch.Tensor], *, collate_fn_map: object) -> torch.Tensor:
    return torch.stack(tensors)


_COLLATE = {**default_collate_fn_map, torch.Tensor: _stacked}
