"""Send objects between processes with all their tensors in one block of shared memory.

torch uses a file descriptor for every tensor. A data set that is a list of tensors, or a few batches of many, exhaust the
limit of a process ("Too many open files").
"""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.reduction import DupFd, ForkingPickler
from pickle import PickleBuffer, Unpickler
from typing import Any

import numpy as np
import torch
from torch.storage import TypedStorage

from .shared_list import LONG, SharedList, pack_list

_ALIGNED = 64  # bytes, as torch allocates
_LARGE = 2**26  # bytes of a tensor worth a descriptor, through which torch shares it without a copy
_SHORT = 2**15  # bytes of a structure that go through a pipe, which holds twice as many
_LARGEST = 100  # tensors of a data set that get one; 252 is the most that a process is started with


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
        if type(obj) is not torch.Tensor or not _plain(obj):
            return None
        if id(obj) not in self._places:
            self._kept.append(obj)
            self._places[id(obj)] = self._append(obj.detach())
        return self._places[id(obj)]

    def reducer_override(self, obj: Any) -> Any:
        """Tensors of classes of their own, such as torchvision's images and boxes, as the tensor and their attributes."""
        kind = type(obj)
        if not isinstance(obj, torch.Tensor) or kind in (torch.Tensor, torch.nn.Parameter) or not _plain(obj):
            return NotImplemented
        if any(getattr(kind, own) is not getattr(torch.Tensor, own) for own in ("__reduce_ex__", "__torch_dispatch__")):
            return NotImplemented
        return _of_class, (obj.as_subclass(torch.Tensor), kind, vars(obj))

    def _append(self, tensor: torch.Tensor) -> _Place:
        if _extent(tensor) > 2 * tensor.numel():  # mostly gaps, such as every tenth column of a table
            tensor = tensor.contiguous()
        stretch, start = tensor.as_strided((_extent(tensor),), (1,)), self.size
        self.pieces.append((start, stretch))
        self.size = start + -(-stretch.nbytes // _ALIGNED) * _ALIGNED
        return start, tensor.dtype, tuple(tensor.size()), tensor.stride()


def _plain(tensor: torch.Tensor) -> bool:
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


_PlaceOfList = tuple[int, tuple[int, int], tuple[int, int]]  # elements, first byte and bytes of them, and of their ends


@dataclass
class SharedDataset:
    """Shared memory for a data set's tensors, arrays and long lists, written once and mapped by all workers.

    The mapping is private (copy-on-write): a worker's writes stay its own.
    """

    _file: int | None = None
    _size: int = 0
    _places: dict[tuple[int, int], int] = field(default_factory=dict)  # address and bytes -> where in the file
    _kept: list[Any] = field(default_factory=list)  # what lies there, so that no other gets its address
    _apart: set[int] = field(default_factory=set)  # addresses of tensors that torch sends
    _lists: dict[int, "_PlaceOfList | None"] = field(default_factory=dict)  # by id; None for those that are not plain

    def load(self, dataset: Any) -> tuple[Any, int, bytes, list[tuple[int, int]]]:
        """The arguments of `receive`. Called while a process is started."""
        if self._file is None:
            self._file = os.memfd_create("phalanx-data")
        file = BytesIO()
        loader = _SharedPickler(file, self)
        loader.dump(dataset)
        spans = [self.locate(np.frombuffer(buffer.raw(), np.uint8), buffer) for buffer in loader.buffers]
        return DupFd(self._file), self._size, file.getvalue(), spans

    def locate(self, octets: "np.ndarray[Any, Any]", owner: object) -> tuple[int, int]:
        """Write these bytes once; returns their offset and size in the file. `owner` is kept alive."""
        assert self._file is not None
        where = octets.ctypes.data, octets.nbytes
        if octets.nbytes and where not in self._places:
            start = -(-self._size // _ALIGNED) * _ALIGNED
            self._size = start + octets.nbytes
            _write(self._file, octets, start)  # a lack of memory is an error now, no signal later
            self._places[where] = start
            self._kept.append(owner)
        return self._places.get(where, 0), octets.nbytes

    def locate_list(self, values: list[Any]) -> "_PlaceOfList | None":
        """Write a long list once; returns its length, and where its bytes and the ends of its pieces are."""
        if id(values) not in self._lists:
            self._kept.append(values)
            packed = pack_list(values)
            if packed is not None:
                places = [self.locate(part.view(np.uint8), part) for part in packed]
                self._lists[id(values)] = (len(values), places[0], places[1])
            else:
                self._lists[id(values)] = None
        return self._lists[id(values)]

    def is_sent_by_torch(self, storage: torch.UntypedStorage) -> bool:
        """Whether torch sends this storage by its own descriptor: it is shared already, or among the first large ones."""
        address = storage.data_ptr()
        if storage.nbytes() >= _LARGE and len(self._apart) < _LARGEST:
            self._apart.add(address)
        return address in self._apart or storage.is_shared()

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def _write(file: int, octets: "np.ndarray[Any, Any]", start: int) -> None:
    rest = octets.data
    while rest:  # the kernel writes two gigabytes at most
        written = os.pwrite(file, rest, start)
        rest, start = rest[written:], start + written


class _SharedPickler(ForkingPickler):
    """Takes the memory of tensors and arrays out of a data set."""

    def __init__(self, file: BytesIO, shared: SharedDataset) -> None:
        self.buffers: list[PickleBuffer] = []
        super().__init__(file, 5, True, self.buffers.append)
        self._shared = shared

    def reducer_override(self, obj: Any) -> Any:
        """Tensors as their storage and how they lie in it, rather than as torch sends them."""
        if (
            isinstance(obj, torch.Tensor)
            and _plain(obj.detach())
            and not self._shared.is_sent_by_torch(obj.untyped_storage())
        ):
            return obj.__reduce_ex__(5)  # type: ignore[no-untyped-call]
        return NotImplemented

    def persistent_id(self, obj: Any) -> "tuple[torch.dtype | None, int, int] | _PlaceOfList | None":
        if type(obj) is list and len(obj) >= LONG:
            return self._shared.locate_list(obj)
        typed = isinstance(obj, TypedStorage)
        storage = obj._untyped_storage if typed else obj
        if (
            not isinstance(storage, torch.UntypedStorage)
            or storage.device.type != "cpu"
            or self._shared.is_sent_by_torch(storage)
        ):
            return None
        return self._stored(storage, obj.dtype if typed else None)

    def _stored(self, storage: torch.UntypedStorage, dtype: torch.dtype | None) -> tuple[torch.dtype | None, int, int]:
        octets = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        return dtype, *self._shared.locate(octets, storage)


def receive(file: Any, size: int, structure: bytes, spans: list[tuple[int, int]]) -> Any:
    """The data set, in the worker."""
    descriptor = file.detach()
    memory = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE) if size else b""
    os.close(descriptor)
    return _SharedUnpickler(structure, memoryview(memory), spans).load()


class _SharedUnpickler(Unpickler):
    """Of what the rank that started this process sends along."""

    def __init__(self, structure: bytes, memory: memoryview, spans: list[tuple[int, int]]) -> None:
        slices: Iterator[memoryview] = (memory[start : start + size] for start, size in spans)
        super().__init__(BytesIO(structure), buffers=slices)
        self._memory = memory
        self._storages: dict[tuple[int, int], torch.UntypedStorage] = {}  # views of one memory stay that
        self._lists: dict[_PlaceOfList, SharedList] = {}  # so does one list that is held twice

    def persistent_load(self, pid: "tuple[torch.dtype | None, int, int] | _PlaceOfList") -> Any:
        if isinstance(pid[1], tuple):
            return self._list(pid)
        dtype, *span = pid
        storage = self._storages.get((span[0], span[1]))
        if storage is None:
            storage = self._storages[span[0], span[1]] = self._storage(*span)
        return storage if dtype is None else _typed(storage, dtype)

    def _list(self, place: "_PlaceOfList") -> SharedList:
        if place not in self._lists:
            length, (start, size), ends = place
            where = np.frombuffer(self._memory, np.int64, ends[1] // 8, ends[0])
            self._lists[place] = SharedList(length, self._memory[start : start + size], where)  # type: ignore[arg-type]
        return self._lists[place]

    def _storage(self, start: int, size: int) -> torch.UntypedStorage:
        if not size:
            return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
        return torch.frombuffer(self._memory, dtype=torch.uint8, offset=start, count=size).untyped_storage()


def _typed(storage: torch.UntypedStorage, dtype: torch.dtype) -> TypedStorage:
    return TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
