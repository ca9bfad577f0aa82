"""A long list of plain values in shared memory, from which a data worker reads one element at a time.

Python's objects count their references, so workers that share them by a fork copy each page that they look at, and to send
millions of objects takes long. Here a list is written once, 32 elements a piece, and read where it is asked for.
The same idea for detectron2: Y. Wu 2022, "Demystify RAM Usage in Multi-Process Data Loaders".
"""

import marshal
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONG = 50_000  # elements of a list that is worth it
_PIECE = 32  # elements
_BLOCK = 128 * _PIECE  # that are looked at and written while they are in the cache
_ATOMS = {str, int, float, bool, complex, bytes, type(None)}
_HOLDERS = {tuple, list, dict}
_DEEP = 4  # how many tuples, lists and dicts within one another an element may be


def pack_list(values: list[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """The elements as bytes, and where each piece of them ends; None where one is neither plain nor of plain values."""
    file, ends = BytesIO(), []
    for first in range(0, len(values), _BLOCK):
        block = values[first : first + _BLOCK]
        if not _is_plain(block, _DEEP):
            return None
        for start in range(0, len(block), _PIECE):
            file.write(
                marshal.dumps(block[start : start + _PIECE], 2)
            )  # 2: without looking for what stands there twice
            ends.append(file.tell())
    return np.frombuffer(file.getbuffer(), np.uint8), np.array(ends, np.int64)


def _is_plain(values: list[Any], deep: int) -> bool:
    """marshal writes an array as its bytes, without a word: so types are looked at, which are to be exact."""
    kinds = set(map(type, values))
    if kinds <= _ATOMS:
        return True
    if not kinds <= _ATOMS | _HOLDERS or not deep:
        return False
    if not kinds <= {tuple, list}:
        values = [_items(value) for value in values if type(value) in _HOLDERS]
    return _is_plain(list(chain.from_iterable(values)), deep - 1)


def _items(value: Any) -> Iterable[Any]:
    return chain.from_iterable(value.items()) if type(value) is dict else value


class SharedList(MutableSequence[Any]):
    """The list in a worker. What is changed in it is this worker's alone; an element is made anew each time it is read."""

    def __init__(self, length: int, octets: memoryview, ends: Sequence[int]) -> None:
        self._length = length
        self._octets = octets
        self._ends = ends
        self._set: dict[int, Any] = {}  # elements that were assigned
        self._own: list[Any] | None = None  # all of them, once its length has changed

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
        if self._own is not None or self._set:
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | SharedList) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def _piece(self, number: int) -> list[Any]:
        start = int(self._ends[number - 1]) if number else 0
        found: list[Any] = marshal.loads(self._octets[start : int(self._ends[number])])
        return found

    def _whole(self) -> list[Any]:
        if self._own is None:
            self._own = list(self)
        return self._own
