"""Data sets that are not tame: in how they hold their samples, draw them, and use memory."""

import ctypes
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

WIDTH, CLASSES = 12, 10
_M_MMAP_THRESHOLD = -3  # of <malloc.h>

Sample = tuple[torch.Tensor, int]


class Rows(Dataset[Sample]):
    """A list of tensors, fetched one by one."""

    def __init__(self, samples: int, width: int = WIDTH) -> None:
        draw = torch.Generator().manual_seed(5)
        self.rows = [torch.randn(width, generator=draw) for _ in range(samples)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.rows[index], index % CLASSES


class Churning(Rows):
    """Each sample works on 80 MiB and frees them; it says how many page faults that took, where `tells`.

    Does as MALLOC_MMAP_THRESHOLD_ says, which glibc reads as a program starts and not in a rank that was forked.
    """

    def __init__(self, samples: int, tells: bool = False) -> None:
        super().__init__(samples)
        self._tells = tells
        if (threshold := os.environ.get("MALLOC_MMAP_THRESHOLD_")) is not None:
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, int(threshold))

    def __getitem__(self, index: int) -> Any:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.ones(8 * 2**20, dtype=torch.uint8) for _ in range(10)]
        return (
            resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before if self._tells else super().__getitem__(index)
        )


class Seldom(Rows):
    """One sample in ten draws, from one of the global generators; the others do not. `asked` counts questions."""

    def __init__(self, samples: int, generator: str) -> None:
        super().__init__(samples)
        self.asked: dict[int, int] = {}
        self._draw: Callable[[], float] = {
            "python": random.random,
            "gauss": lambda: random.gauss(0.0, 1.0),
            "numpy": np.random.rand,
            "numpy_normal": np.random.randn,
            "torch": lambda: torch.rand(()).item(),
            "torch_normal": lambda: torch.randn(()).item(),
        }[generator]

    def __getitem__(self, index: int) -> Any:
        self.asked[index] = self.asked.get(index, 0) + 1
        return index, self._draw() if index % 10 == 7 else 0.0


class DrawingList(Rows):
    """Draws for each sample of a list that it answers a batch with."""

    def __getitems__(self, indices: NDArray[np.int64]) -> list[Any]:
        return [(int(index), torch.rand(2)) for index in indices]


class DrawingBatch(Rows):
    """Draws once a batch."""

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.as_tensor(indices), torch.rand(len(indices))


class Pieces(Dataset[Any]):
    """Holds memory in every way that may go wrong on its way into another process; sample i is what has become of it."""

    def __init__(self) -> None:
        self.whole = torch.arange(24.0).view(4, 6)
        self.views = list(self.whole)
        self.columns = self.whole.t()
        self.half = torch.ones(3, dtype=torch.bfloat16)
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.array = np.arange(6, dtype=np.int16)[::2]
        self.table = np.ones((2, 3), order="F")
        self.empty = torch.empty(0, 3)
        self.large = torch.ones(2**24 + 1)
        self.shared = torch.zeros(2).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        self.whole[1, 0] = 100.0  # its views see it, the other workers and the rank do not
        self.shared[index] = 1.0  # all see it
        return {
            "views": self.views[1].clone(),
            "columns": self.columns.stride(),
            "half": self.half.float(),
            "weight": self.weight.detach(),
            "array": self.array + self.table.sum(),
            "empty": self.empty.shape,
            "large": self.large.sum(),
            "fortran": self.table.flags.f_contiguous,
        }


class Wide(Dataset[Any]):
    """A sample is many tensors, as of a graph or a table of many columns."""

    def __init__(self, samples: int, columns: int) -> None:
        self._samples, self._columns = samples, columns

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {f"column_{number}": torch.tensor([index, number]) for number in range(self._columns)}


class Sent(Rows):
    """Notes in `journal` each time that it is unpacked in another process."""

    def __init__(self, samples: int, journal: str) -> None:
        super().__init__(samples)
        self.journal = journal

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with Path(self.journal).open("a") as lines:
            lines.write("sent\n")


class Threaded(Rows):
    """Fails unless as many threads compute as it was told."""

    def __init__(self, samples: int, threads: int) -> None:
        super().__init__(samples)
        self._threads = threads

    def __getitem__(self, index: int) -> Any:
        assert torch.get_num_threads() == self._threads
        return super().__getitem__(index)
