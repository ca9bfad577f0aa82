"""Send a data set to worker processes with its tensors, arrays and long lists in one block of shared memory."""

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
from torch.utils.data import Dataset

from .shared_list import LONG, SharedList, pack_list
from .tensor_packing import ALIGNED, is_plain

_LARGE = 2**26  # bytes of a tensor worth a descriptor, through which torch shares it without a copy
_LARGEST = 100  # tensors of a data set that get one; 252 is the most that a process is started with

_Span = tuple[int, int]  # first byte, bytes
_PlaceOfList = tuple[int, _Span, _Span]  # elements, where they are, and where the ends of their pieces
_PlaceOfStorage = tuple[torch.dtype | None, int, int]  # the span of its bytes


@dataclass
class SharedDataset:
    """Shared memory for what data sets hold, written once and mapped by all workers.

    A worker's mapping is private (copy-on-write): its writes stay its own. The rank's is not: workers see what it writes.
    """

    _file: int | None = None
    _size: int = 0
    _places: dict[_Span, int] = field(default_factory=dict)  # address and bytes -> where in the file
    _owners: dict[_Span, Any] = field(default_factory=dict)  # of that memory, so that no other gets the address
    _apart: set[int] = field(default_factory=set)  # addresses of tensors that torch sends
    _lists: dict[int, tuple[Any, _PlaceOfList | None]] = field(default_factory=dict)  # by id; None: it is not plain

    def load(self, dataset: Any) -> tuple[Any, int, bytes, list[_Span]]:
        """The arguments of `receive`. Called while a process is started."""
        if self._file is None:
            self._file = os.memfd_create("phalanx-data")
        file = BytesIO()
        loader = _SharedPickler(file, self)
        loader.dump(dataset)
        spans = [self.locate(np.frombuffer(buffer.raw(), np.uint8), buffer) for buffer in loader.buffers]
        return DupFd(self._file), self._size, file.getvalue(), spans

    def locate(self, octets: "np.ndarray[Any, Any]", owner: object) -> _Span:
        """Write these bytes once; returns where they are in the file. `owner` is kept alive."""
        assert self._file is not None
        where = octets.ctypes.data, octets.nbytes
        if octets.nbytes and where not in self._places:
            start = self._end()
            _write(self._file, octets.data, start)
            self._size = start + octets.nbytes
            self._places[where] = start
            self._owners[where] = owner
        return self._places.get(where, 0), octets.nbytes

    def locate_list(self, values: "list[Any] | SharedList") -> _PlaceOfList | None:
        """Write a long list once; returns where it is. None where it is not plain, or has changed since."""
        if isinstance(values, SharedList):
            return None if values.is_changed or id(values) not in self._lists else self._lists[id(values)][1]
        if id(values) not in self._lists:
            self._lists[id(values)] = values, self._written(values)
        return self._lists[id(values)][1]

    def _written(self, values: list[Any]) -> _PlaceOfList | None:
        assert self._file is not None
        file, start = self._file, self._end()
        at = start

        def write(octets: memoryview) -> None:
            nonlocal at
            _write(file, octets, at)
            at += len(octets)

        ends = pack_list(values, write)
        if ends is None:
            return None
        self._size = at
        return len(values), (start, at - start), self.locate(ends.view(np.uint8), ends)

    def _end(self) -> int:
        return -(-self._size // ALIGNED) * ALIGNED

    def is_sent_by_torch(self, storage: torch.UntypedStorage) -> bool:
        """Whether torch sends this storage by its own descriptor: it is shared already, or among the first large ones."""
        address = storage.data_ptr()
        if storage.nbytes() >= _LARGE and len(self._apart) < _LARGEST:
            self._apart.add(address)
        return address in self._apart or storage.is_shared()

    def replace_held(self, dataset: Any) -> None:
        """Let a data set that was sent hold the shared memory itself, so that its own lists and arrays are freed.

        Those are replaced that are attributes of the data set or of a data set that it holds, or stand there in a dict or
        a short list: lists of LONG elements or more, and arrays of 64 MiB or more.
        """
        assert self._file is not None
        memory = memoryview(mmap.mmap(self._file, self._size)) if self._size else memoryview(b"")
        replaced: dict[int, Any] = {}
        old: list[Any] = []  # until the end, so that no two have one id
        for holder in _holders(dataset, set()):
            for name, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
                if id(value) not in replaced and (found := self._shared(value, memory)) is not None:
                    replaced[id(value)] = found
                    old.append(value)
                if id(value) in replaced:
                    holder[name] = replaced[id(value)]

    def _shared(self, value: Any, memory: memoryview) -> Any:
        if type(value) is list and self._lists.get(id(value), (None, None))[1] is not None:
            _, place = self._lists.pop(id(value))
            assert place is not None
            found: Any = _list_at(place, memory)
            self._lists[id(found)] = found, place
            return found
        if type(value) is np.ndarray and value.nbytes >= _LARGE and (value.ctypes.data, value.nbytes) in self._places:
            where = value.ctypes.data, value.nbytes
            start = self._places.pop(where)
            found = np.ndarray(value.shape, value.dtype, memory, start, value.strides)
            self._places[found.ctypes.data, found.nbytes] = start
            self._owners[found.ctypes.data, found.nbytes] = found
            del self._owners[where]
            found = found.view()
            found.flags.writeable = value.flags.writeable
            return found
        return None

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


def _write(file: int, octets: memoryview, start: int) -> None:
    """A lack of memory is an error here, where to touch a page that cannot be had would be a signal."""
    while octets:  # the kernel writes two gigabytes at most
        written = os.pwrite(file, octets, start)
        octets, start = octets[written:], start + written


def _holders(value: Any, seen: set[int]) -> "Iterator[dict[Any, Any] | list[Any]]":
    """What holds the parts of a data set: its attributes, dicts and short lists there, and those of data sets in it."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict) or (isinstance(value, list) and len(value) < LONG):
        holder: Any = value
    elif hasattr(value, "__dict__") and (isinstance(value, Dataset) or hasattr(type(value), "__getitem__")):
        holder = vars(value)
    else:
        return
    yield holder
    for part in list(holder.values() if isinstance(holder, dict) else holder):
        yield from _holders(part, seen)


class _SharedPickler(ForkingPickler):
    """Takes the memory of tensors, arrays and long lists out of a data set."""

    def __init__(self, file: BytesIO, shared: SharedDataset) -> None:
        self.buffers: list[PickleBuffer] = []
        super().__init__(file, 5, True, self.buffers.append)
        self._shared = shared

    def reducer_override(self, obj: Any) -> Any:
        """Tensors as their storage and how they lie in it, rather than as torch sends them."""
        if (
            isinstance(obj, torch.Tensor)
            and is_plain(obj.detach())
            and not self._shared.is_sent_by_torch(obj.untyped_storage())
        ):
            return obj.__reduce_ex__(5)  # type: ignore[no-untyped-call]
        return NotImplemented

    def persistent_id(self, obj: Any) -> _PlaceOfStorage | _PlaceOfList | None:
        if type(obj) in (list, SharedList) and len(obj) >= LONG:
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

    def _stored(self, storage: torch.UntypedStorage, dtype: torch.dtype | None) -> _PlaceOfStorage:
        octets = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        return dtype, *self._shared.locate(octets, storage)


def receive(file: Any, size: int, structure: bytes, spans: list[_Span]) -> Any:
    """The data set, in the worker."""
    descriptor = file.detach()
    memory = mmap.mmap(descriptor, size, mmap.MAP_PRIVATE) if size else b""
    os.close(descriptor)
    return _SharedUnpickler(structure, memoryview(memory), spans).load()


class _SharedUnpickler(Unpickler):
    """Of what the rank that started this process sends along."""

    def __init__(self, structure: bytes, memory: memoryview, spans: list[_Span]) -> None:
        slices: Iterator[memoryview] = (memory[start : start + size] for start, size in spans)
        super().__init__(BytesIO(structure), buffers=slices)
        self._memory = memory
        self._storages: dict[_Span, torch.UntypedStorage] = {}  # views of one memory stay that
        self._lists: dict[_PlaceOfList, SharedList] = {}  # so does one list that is held twice

    def persistent_load(self, pid: _PlaceOfStorage | _PlaceOfList) -> Any:
        if isinstance(pid[1], tuple):
            if pid not in self._lists:
                self._lists[pid] = _list_at(pid, self._memory)
            return self._lists[pid]
        dtype, *span = pid
        storage = self._storages.get((span[0], span[1]))
        if storage is None:
            storage = self._storages[span[0], span[1]] = self._storage(*span)
        return storage if dtype is None else _typed(storage, dtype)

    def _storage(self, start: int, size: int) -> torch.UntypedStorage:
        if not size:
            return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
        return torch.frombuffer(self._memory, dtype=torch.uint8, offset=start, count=size).untyped_storage()


def _list_at(place: _PlaceOfList, memory: memoryview) -> SharedList:
    length, (start, size), ends = place
    where = np.frombuffer(memory, np.int64, ends[1] // 8, ends[0])
    return SharedList(length, memory[start : start + size], where)  # type: ignore[arg-type]


def _typed(storage: torch.UntypedStorage, dtype: torch.dtype) -> TypedStorage:
    return TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
