"""Tell why samples do not stack: which field of which two of them differs, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

_TYPE = (
    "Type data.collate={_target_:mypkg.collate,_partial_:true}, a function that makes a batch of a list of samples, or "
    "give the data set a method collate(self, samples)"
)
_STACKS = (torch.Tensor, np.ndarray, np.generic, int, float, str, bytes)


def explain(samples: Sequence[Any], indices: Sequence[int], name: str) -> str | None:
    """A message on the first field in which samples differ or that does not stack; None where none is found.

    `indices` are those of the samples in the data set called `name`.
    """
    found = _difference(list(samples), "")
    if found is None:
        return None
    path, (one, first), (other, second) = found
    field = f" in {path}" if path else ""
    if one == other:
        return (
            f"{name}'s samples cannot be put into a batch: sample {indices[one]} has {first}{field}, which does not "
            f"stack. Convert it to a tensor in __getitem__. {_TYPE}, where it is to stay as it is"
        )
    return (
        f"{name}'s samples do not stack{field}: sample {indices[one]} has {first}, and sample {indices[other]} has "
        f"{second}. Give them one shape in __getitem__, or pad them. {_TYPE}"
    )


_Told = tuple[int, str]


def _difference(values: list[Any], path: str) -> tuple[str, _Told, _Told] | None:
    """The path of the first field that differs, and the places of two values in the list with a word on each."""
    first = values[0]
    kind = _kind(first)
    for place, value in enumerate(values):
        if _kind(value) != kind or _size(value) != _size(first):
            return path, (0, _told(first)), (place, _told(value))
    if isinstance(first, Mapping):
        for key in first:
            if (odd := next((i for i, value in enumerate(values) if key not in value), None)) is not None:
                return path, (0, f"a key {key!r}"), (odd, "none")
            if (found := _difference([value[key] for value in values], f"{path}[{key!r}]")) is not None:
                return found
        return None
    if isinstance(first, list | tuple):
        names = getattr(first, "_fields", range(len(first)))
        for i, name in enumerate(names):
            below = f"{path}.{name}" if isinstance(name, str) else f"{path}[{name}]"
            if (found := _difference([value[i] for value in values], below)) is not None:
                return found
        return None
    if isinstance(first, _STACKS):
        return None
    return path, (0, _told(first)), (0, "")


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor {value.dtype}" if value.layout is not torch.strided else "tensor"
    if isinstance(value, np.ndarray):
        return "array"
    if isinstance(value, int | float | np.generic):
        return "number"
    return type(value).__name__


def _size(value: Any) -> object:
    if isinstance(value, torch.Tensor | np.ndarray):
        return tuple(value.shape)
    return len(value) if isinstance(value, list | tuple) else None


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"shape {tuple(value.shape)}"
    if value is None:
        return "None"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")
