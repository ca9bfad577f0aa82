"""Serialise plain data to bytes and back, without pickle: a sender cannot execute code here."""

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from phalanx.exit.codes import ConfigError

from .world import World

_ALIGNED = 16  # bytes: where a tensor of any dtype may begin
_HEAD = 8  # bytes that say how long the description is
_PIECE = 1 << 28  # bytes that are sent at once
_NUMBERS = (bool, int, float, str, type(None))
_HELD: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_KEYED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("dict", "defaultdict"), dict),
    "OrderedDict": OrderedDict,
    "Counter": lambda pairs: Counter(dict(pairs)),
}
_DTYPES = {str(found): found for found in vars(torch).values() if isinstance(found, torch.dtype)}


def pack(value: Any, name: str) -> torch.Tensor:
    """`value`, which is called `name`, as uint8 of shape (bytes,) on the CPU.

    It is tensors, arrays, numbers, text, bytes, None, and lists, tuples, sets and dicts of these. Raises ConfigError that
    says which part of it is anything else.
    """
    tensors: list[torch.Tensor] = []
    text = json.dumps(_describe(value, name, tensors)).encode()
    parts = [torch.tensor([len(text)]).view(torch.uint8), torch.frombuffer(bytearray(text), dtype=torch.uint8)]
    for tensor in tensors:
        parts += [_gap(parts), tensor.detach().cpu().contiguous().flatten().view(torch.uint8)]
    return torch.cat(parts)


def unpack(packed: torch.Tensor, device: torch.device) -> Any:
    """What was packed. What lay on a GPU then lies on `device`, where that is one. It may share memory with `packed`."""
    length = int(packed[:_HEAD].view(torch.int64))
    described = json.loads(packed[_HEAD : _HEAD + length].numpy().tobytes())
    return _restore(described, packed, _HEAD + length, device)[0]


def gather_on_rank_zero(packed: torch.Tensor, world: World) -> list[torch.Tensor]:
    """On rank 0 what all ranks packed, in rank order; nothing on the others. All ranks call it."""
    own = torch.zeros(world.size, dtype=torch.float64)
    own[world.rank] = packed.numel()
    # All ranks take part.
    sizes = world.sum(own).long().tolist()
    if not world.is_rank_zero:
        for piece in torch.split(packed, _PIECE):
            # This rank sends; rank 0 receives.
            dist.send(piece, dst=0, group=world.control)
        return []
    others = [torch.empty(size, dtype=torch.uint8) for size in sizes[1:]]
    for rank, other in enumerate(others, 1):
        for piece in torch.split(other, _PIECE):
            # Rank 0 receives from one rank after another.
            dist.recv(piece, src=rank, group=world.control)
    return [packed, *others]


def _gap(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.zeros(-sum(part.numel() for part in parts) % _ALIGNED, dtype=torch.uint8)


def _describe(value: Any, name: str, tensors: list[torch.Tensor]) -> Any:
    """The structure as JSON holds it; `tensors` get those that it names, in order."""
    if type(value) in _NUMBERS:
        return value
    if isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_quantized:
        tensors.append(value)
        return {"is": "tensor", "dtype": str(value.dtype), "shape": list(value.shape), "device": value.device.type}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufc":
        tensors.append(torch.from_numpy(np.atleast_1d(value).copy()))
        kind = "ndarray" if isinstance(value, np.ndarray) else "scalar"
        return {"is": kind, "dtype": str(tensors[-1].dtype), "shape": list(value.shape), "device": "cpu"}
    if type(value) is bytes:
        tensors.append(torch.from_numpy(np.frombuffer(bytearray(value), np.uint8)))
        return {"is": "bytes", "dtype": "torch.uint8", "shape": [len(value)]}
    kind = type(value).__name__
    if kind in _HELD and type(value) is _HELD[kind]:
        return {"is": kind, "items": [_describe(item, f"{name}[{i}]", tensors) for i, item in enumerate(value)]}
    if isinstance(value, dict) and kind in _KEYED:
        pairs = [
            [_describe(key, f"a key of {name}", tensors), _describe(item, f"{name}[{key!r}]", tensors)]
            for key, item in value.items()
        ]
        return {"is": kind, "items": pairs}
    raise ConfigError(
        f"{name} is a {type(value).__module__}.{kind}, which only pickle could send to another rank. Keep tensors, "
        "arrays, numbers, text, and lists and dicts of these there, or return what is such from state_dict() and take it "
        "in load_state_dict(state)"
    )


def _restore(described: Any, packed: torch.Tensor, offset: int, device: torch.device) -> tuple[Any, int]:
    """The value, and where in `packed` the tensors after those of it begin."""
    if not isinstance(described, Mapping):
        return described, offset
    kind = described["is"]
    if kind in _HELD or kind in _KEYED:
        items = []
        for item in described["items"]:
            parts = []
            for part in item if kind in _KEYED else [item]:
                found, offset = _restore(part, packed, offset, device)
                parts.append(found)
            items.append(tuple(parts) if kind in _KEYED else parts[0])
        return (_KEYED if kind in _KEYED else _HELD)[kind](items), offset
    tensor, offset = _tensor(described, packed, offset)
    if kind == "bytes":
        return tensor.numpy().tobytes(), offset
    if kind == "tensor":
        return (tensor.to(device) if described["device"] != "cpu" else tensor), offset
    array = tensor.numpy().reshape(described["shape"])
    return (array if kind == "ndarray" else array[()]), offset


def _tensor(described: Mapping[str, Any], packed: torch.Tensor, offset: int) -> tuple[torch.Tensor, int]:
    dtype, shape = _DTYPES[described["dtype"]], torch.Size(described["shape"])
    begin = offset + -offset % _ALIGNED
    end = begin + shape.numel() * dtype.itemsize
    return packed[begin:end].view(dtype).view(shape), end
