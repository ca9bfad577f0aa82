"""A long list of plain values in shared memory, of which one element at a time is read.

Python's objects count their references, so workers that share them by a fork copy each page that they look at, and to send
millions of objects takes long. Here a list is written once, 32 elements a piece, and read where it is asked for.
The same idea for detectron2: Y. Wu 2022, "Demystify RAM Usage in Multi-Process Data Loaders".
"""

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from io import BytesIO
from itertools import chain
from pickle import Pickler, Unpickler, UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG = 50_000  # elements of a list that is worth it
_PIECE = 32  # elements
_BLOCK = 128 * _PIECE  # that are written at once


class _NotPlainError(Exception):
    """An element is, or holds, an object of a class other than Python's own."""


class _PlainPickler(Pickler):
    """Pickles strings, numbers, bytes, None and tuples, lists, dicts and sets of them; raises _NotPlainError for others."""

    def reducer_override(self, obj: Any) -> Any:
        raise _NotPlainError


class _PlainUnpickler(Unpickler):
    """Loads what _PlainPickler wrote, and makes no object of any other class."""

    def find_class(self, module: str, name: str) -> Any:
        raise UnpicklingError(f"{module}.{name} in a list of plain values")


def pack_list(values: list[Any], write: Callable[[memoryview], None]) -> NDArray[np.int64] | None:
    """`write` the elements as bytes, in order; returns where each piece of them ends. None where one is not plain."""
    file = BytesIO()
    pickler, written, ends = _PlainPickler(file, 5), 0, []
    for first in range(0, len(values), _BLOCK):
        block = values[first : first + _BLOCK]
        file.seek(0)
        try:
            for start in range(0, len(block), _PIECE):
                pickler.dump(block[start : start + _PIECE])
                pickler.clear_memo()
                ends.append(written + file.tell())
        except (_NotPlainError, RecursionError):
            return None
        write(file.getbuffer()[: file.tell()])
        written += file.tell()
    return np.array(ends, np.int64)


class SharedList(MutableSequence[Any]):
    """The list in a process, which makes an element anew each time it is read. What is changed is of this process alone."""

    def __init__(self, length: int, octets: memoryview, ends: Sequence[int]) -> None:
        self._length = length
        self._octets = octets
        self._ends = ends
        self._set: dict[int, Any] = {}  # elements that were assigned
        self._own: list[Any] | None = None  # all of them, once its length has changed

    @property
    def is_changed(self) -> bool:
        return self._own is not None or bool(self._set)

    def __len__(self) -> int:
        return self._length if self._own is None else len(self._own)

    def __getitem__(self, index: Any) -> Any:
        if self._own is not None:
            return self._own[index]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        index = range(self._length)[index]
        return self._set[index] if index in self._set else self._piece(index // _PIECE)[index % _PIECE]

    def __iter__(self) -> Iterator[Any]:
        if self.is_changed:
            return (self[i] for i in range(len(self)))
        return chain.from_iterable(self._piece(number) for number in range(len(self._ends)))

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._own is None and not isinstance(index, slice):
            self._set[range(self._length)[index]] = value
        else:
            self._whole()[index] = value

    def __delitem__(self, index: Any) -> None:
        del self._whole()[index]

    def insert(self, index: int, value: Any) -> None:
        self._whole().insert(index, value)

    def sort(self, **how: Any) -> None:
        self._whole().sort(**how)

    def copy(self) -> list[Any]:
        return list(self)

    def __add__(self, other: Iterable[Any]) -> list[Any]:
        return [*self, *other]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(list(self), dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | SharedList) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def _piece(self, number: int) -> list[Any]:
        start = int(self._ends[number - 1]) if number else 0
        found: list[Any] = _PlainUnpickler(BytesIO(self._octets[start : int(self._ends[number])])).load()
        return found

    def _whole(self) -> list[Any]:
        if self._own is None:
            self._own = list(self)
        return self._own
