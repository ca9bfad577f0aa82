"""A long list goes to data workers in shared memory, once, and is there what it was."""

import copy
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

from phalanx.train.loading.loader import Fetcher
from phalanx.train.loading.shard import Span
from phalanx.train.loading.workers.shared_list import LONG, SharedList, pack_list
from tests.train.loading.batches import source

pytestmark = pytest.mark.xdist_group("data workers")  # they share a fork server, which imports torch

Point = namedtuple("Point", ["x", "y"])
ELEMENTS: list[Any] = [
    ("a/path.jpeg", 7),
    "text with \udcff and \0",
    2**70,
    -1.5,
    None,
    True,
    b"bytes",
    {"boxes": [[1, 2.5], []], 3: ("nested", {"deep": None})},
    ([[[[[bytearray(b"x")]]]]], {"set", 1}, frozenset()),
]
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class Folder(Dataset[Any]):
    """Held twice, as torchvision's folders hold `samples` and `imgs`."""

    def __init__(self, samples: int) -> None:
        self.samples: Any = [(f"image_{index}.jpeg", index) for index in range(samples)]
        self.imgs: Any = self.samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        assert self.imgs is self.samples
        assert type(self.samples).__name__ in ("SharedList", "list")
        path, label = self.samples[index]
        return path, label, type(self.samples) is list


class Table(Dataset[Any]):
    """64 MiB. Reading a row also writes to it, after it was read."""

    def __init__(self) -> None:
        self.rows = np.zeros((2**13, 2**10), order="F")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = torch.tensor(self.rows[index])
        self.rows[index] += 1.0
        return row


def shared(values: list[Any]) -> SharedList:
    written = bytearray()
    ends = pack_list(values, written.extend)
    assert ends is not None
    return SharedList(len(values), memoryview(written), ends)  # type: ignore[arg-type]


def test_elements_are_what_they_were() -> None:
    values = [ELEMENTS[i % len(ELEMENTS)] for i in range(5003)]
    found = shared(values)
    assert len(found) == 5003
    assert list(found) == values
    assert [found[i] for i in (0, 31, 32, 4095, 4096, 5002, -1, -5003)] == [
        values[i] for i in (0, 31, 32, 4095, 4096, 5002, -1, -5003)
    ]
    assert found[4000:10:-37] == values[4000:10:-37]
    assert type(found[0]) is tuple
    assert found == values
    assert values[3] in found
    with pytest.raises(IndexError):
        found[5003]
    assert copy.deepcopy(found) == values


def test_a_worker_may_change_its_own() -> None:
    values: list[Any] = [None] * 100
    found = shared(values)
    found[7] = torch.ones(1)
    found[-1] = "last"
    assert (found[7], found[99], found[98]) == (torch.ones(1), "last", None)
    found.append("more")
    del found[0]
    assert (len(found), found[-1], found[6]) == (100, "more", torch.ones(1))
    numbers = shared(list(range(50)))
    numbers.sort(reverse=True)
    assert numbers[:3] == [49, 48, 47]
    assert numbers.__add__([1]) == [*range(49, -1, -1), 1]


@pytest.mark.parametrize(
    "element",
    [
        np.float64(1),
        1j,
        np.arange(3),
        torch.ones(2),
        Point(1, 2),
        {"a": {"b": [Folder]}},
        DEEP,
    ],
)
def test_what_is_not_plain_is_sent_as_before(element: Any) -> None:
    """Among thousands that are."""
    assert pack_list([("path", 1)] * 5000 + [element], lambda _: None) is None


def test_workers_read_the_list_from_shared_memory() -> None:
    folder = Folder(LONG)
    spans = [Span(i * 8, i * 8 + 8) for i in range(6)]
    here = [batch for batch in Fetcher(source(folder), 0, 1, False).batches(spans)]
    fetcher = Fetcher(source(folder), 2, 1, False)
    for workers in (fetcher, fetcher):
        there = list(workers.batches(spans))
        assert [batch[0] for batch in there] == [batch[0] for batch in here]
        assert all(torch.equal(one[1], other[1]) for one, other in zip(there, here, strict=True))
        assert not any(batch[2].any() for batch in there), "it is no list of objects there"
    assert fetcher.shared._size < 3 * 2**20, "it was written once"
    assert isinstance(folder.samples, SharedList), "nor in the rank, whose own is freed"
    assert id(folder.imgs) == id(folder.samples)
    assert folder.samples == Folder(LONG).samples
    folder.samples[0] = ("changed", 0)
    assert next(fetcher.batches([Span(0, LONG)]))[0].count("changed") == 1, (
        "what the rank changes later reaches workers"
    )


def test_a_large_array_is_in_memory_once() -> None:
    """It is that of the rank, whose writes workers see, and not the other way round."""
    table = Table()
    before = table.rows
    fetcher = Fetcher(source(Subset(table, range(8))), 1, 1, False)
    (batch,) = fetcher.batches([Span(0, 8)])
    assert batch.sum() == 0
    assert table.rows is not before
    assert table.rows.strides == before.strides
    assert not table.rows.any(), "a worker's writes stay its own"
    size = fetcher.shared._size
    table.rows[:8, -1] = 5.0
    assert next(fetcher.batches([Span(0, 8)])).sum() == 40.0
    assert fetcher.shared._size == size, "it was written once"
