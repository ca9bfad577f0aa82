"""Send objects between processes with all their tensors in one block of shared memory.

torch uses a file descriptor for every tensor. A data set that is a list of tensors, or a few batches of many, exhaust the
limit of a process ("Too many open files").
"""

from dataclasses import dataclass
from io import BytesIO
from multiprocessing.reduction import ForkingPickler
from pickle import Unpickler
from typing import Any

import torch

ALIGNED = 64  # bytes, as torch allocates
_SHORT = 2**15  # bytes of a structure that go through a pipe, which holds twice as many


@dataclass(frozen=True)
class PackedTensors:
    """An answer of a worker: its pickled structure, and the bytes of its tensors in shared memory.

    A long structure, as of images and texts, lies in the shared memory, too, from the byte that `structure` tells on.
    """

    structure: bytes | int
    memory: torch.Tensor

    def pin_memory(self) -> "PackedTensors":
        """Called by torch's pin-memory thread."""
        return PackedTensors(self.structure, self.memory.pin_memory())


def pack(answer: Any) -> PackedTensors:
    """`answer` with a copy of each of its dense CPU tensors; what else it holds is pickled."""
    file = BytesIO()
    packer = _TensorPickler(file)
    packer.dump(answer)
    structure, inside = file.getbuffer(), file.tell() > _SHORT
    size = packer.size + len(structure) if inside else packer.size
    shared = torch.UntypedStorage._new_shared(max(1, size))  # type: ignore[no-untyped-call]
    memory = torch.empty(0, dtype=torch.uint8).set_(shared)
    for start, stretch in packer.pieces:
        memory[start : start + stretch.nbytes].view(stretch.dtype).copy_(stretch)
    if inside:
        memory[packer.size :].numpy()[:] = structure
    return PackedTensors(packer.size if inside else bytes(structure), memory)


def unpack(parcel: PackedTensors) -> Any:
    """The answer; its tensors are views of the parcel's memory."""
    return _TensorUnpickler(parcel).load()


_Place = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]  # first byte, dtype, size, stride


class _TensorPickler(ForkingPickler):
    """Collects tensors and pickles their offsets."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file)
        self.size = 0
        self.pieces: list[tuple[int, torch.Tensor]] = []
        self._kept: list[torch.Tensor] = []  # until all is packed, so that no two have one id
        self._places: dict[int, _Place] = {}

    def persistent_id(self, obj: Any) -> _Place | None:
        if type(obj) is not torch.Tensor or not is_plain(obj):
            return None
        if id(obj) not in self._places:
            self._kept.append(obj)
            self._places[id(obj)] = self._append(obj.detach())
        return self._places[id(obj)]

    def reducer_override(self, obj: Any) -> Any:
        """Tensors of classes of their own, such as torchvision's images and boxes, as the tensor and their attributes."""
        kind = type(obj)
        if not isinstance(obj, torch.Tensor) or kind in (torch.Tensor, torch.nn.Parameter) or not is_plain(obj):
            return NotImplemented
        if any(getattr(kind, own) is not getattr(torch.Tensor, own) for own in ("__reduce_ex__", "__torch_dispatch__")):
            return NotImplemented
        return _of_class, (obj.as_subclass(torch.Tensor), kind, vars(obj))

    def _append(self, tensor: torch.Tensor) -> _Place:
        if _extent(tensor) > 2 * tensor.numel():  # mostly gaps, such as every tenth column of a table
            tensor = tensor.contiguous()
        stretch, start = tensor.as_strided((_extent(tensor),), (1,)), self.size
        self.pieces.append((start, stretch))
        self.size = start + -(-stretch.nbytes // ALIGNED) * ALIGNED
        return start, tensor.dtype, tuple(tensor.size()), tensor.stride()


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is memory on the CPU and nothing more; others are sent as torch sends them."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
    )


def _extent(tensor: torch.Tensor) -> int:
    """Elements from the first in memory to the last."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.size(), tensor.stride(), strict=True))


def _of_class(tensor: torch.Tensor, kind: type[torch.Tensor], attributes: dict[str, Any]) -> torch.Tensor:
    found: torch.Tensor = tensor.as_subclass(kind)
    vars(found).update(attributes)
    return found


class _TensorUnpickler(Unpickler):
    """Loads what `pack` made in another process of this run."""

    def __init__(self, parcel: PackedTensors) -> None:
        known = parcel.structure
        super().__init__(BytesIO(known if isinstance(known, bytes) else parcel.memory[known:].numpy().data))
        self._memory = parcel.memory

    def persistent_load(self, pid: _Place) -> torch.Tensor:
        start, dtype, size, stride = pid
        extent = _extent(torch.empty(0, device="meta").as_strided(size, stride)) if 0 not in size else 0
        return self._memory[start : start + extent * dtype.itemsize].view(dtype).as_strided(size, stride)
