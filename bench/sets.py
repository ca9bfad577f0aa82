"""Data sets that benchmarks train on."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

Sample = tuple[torch.Tensor, int]


class Rows(Dataset[Sample]):
    """Short rows in a list, fetched one by one: the least work that a sample can be."""

    def __init__(self, samples: int) -> None:
        self._rows = [torch.randn(16) for _ in range(samples)]
        self._labels = torch.randint(0, 2, (samples,)).tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self._rows[index], self._labels[index]


class Pictures(Dataset[Sample]):
    """Noise in the shape of CIFAR-10's images, (3, 32, 32), in memory."""

    def __init__(self, samples: int) -> None:
        self._images, self._labels = torch.randn(samples, 3, 32, 32), torch.randint(0, 10, (samples,))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        return self._images[index], int(self._labels[index])

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        where = torch.as_tensor(indices)
        return self._images.index_select(0, where), self._labels.index_select(0, where)


class Linear(nn.Module):
    """Two classes of Rows."""

    def __init__(self) -> None:
        super().__init__()
        self._layer = nn.Linear(16, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self._layer(rows)
        return scores
