"""Data sets that are not tame: in how they hold their samples, draw them, and use memory."""

import resource
from typing import Any

import torch
from torch.utils.data import Dataset

WIDTH, CLASSES = 12, 10

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
    """Each sample works on 80 MiB and frees them; it says how many page faults that took, where `tells`."""

    def __init__(self, samples: int, tells: bool = False) -> None:
        super().__init__(samples)
        self._tells = tells

    def __getitem__(self, index: int) -> Any:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.ones(8 * 2**20, dtype=torch.uint8) for _ in range(10)]
        return (
            resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before if self._tells else super().__getitem__(index)
        )
