"""Convert a module's `get_extra_state` to plain values that load with weights_only=True, and back."""

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from phalanx.exit.codes import ConfigError

_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.Tensor, torch.dtype, torch.device, torch.Size)
_TAG = "phalanx"  # marks what stands for a value of another type


def to_plain(value: Any, where: str) -> Any:
    """`value` as `torch.load(weights_only=True)` reads it; `from_plain` is its inverse. Raises ConfigError."""
    if type(value) in _PLAIN or isinstance(value, torch.Tensor):
        return value.detach() if isinstance(value, torch.Tensor) else value
    if type(value) in (dict, OrderedDict):
        return {
            _TAG: type(value).__name__,
            "items": [[to_plain(k, where), to_plain(v, where)] for k, v in value.items()],
        }
    if type(value) in (list, tuple, set):
        return {_TAG: type(value).__name__, "items": [to_plain(item, where) for item in value]}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufc":
        return {
            _TAG: type(value).__name__,
            "items": torch.from_numpy(np.atleast_1d(value).copy()),
            "shape": value.shape,
        }
    if isinstance(value, io.BytesIO):
        return {_TAG: "BytesIO", "items": value.getvalue()}
    raise ConfigError(
        f"The extra state of {where} holds a {type(value).__module__}.{type(value).__name__}, which only pickle could "
        "save. Return numbers, strings, tensors, arrays, and lists and dicts of them from get_extra_state"
    )


def from_plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind, items = value[_TAG], value["items"]
    if kind in ("dict", "OrderedDict"):
        pairs = [(from_plain(name), from_plain(item)) for name, item in items]
        return OrderedDict(pairs) if kind == "OrderedDict" else dict(pairs)
    if kind in ("list", "tuple", "set"):
        return {"list": list, "tuple": tuple, "set": set}[kind](from_plain(item) for item in items)
    if kind == "BytesIO":
        return io.BytesIO(items)
    array = items.cpu().numpy().reshape(value["shape"])
    return array if kind == "ndarray" else array[()]


def extra_state_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a state_dict that are not tensors, as plain values. Raises ConfigError."""
    return {name: to_plain(value, name) for name, value in state.items() if not isinstance(value, torch.Tensor)}
