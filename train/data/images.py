"""Labelled images held in memory: one indexing operation a batch."""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset


class ImagesInMemory(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images (n, channels, height, width) of floats with labels (n,) of int64, given out as they are."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, fingerprint: str) -> None:
        self._images = images
        self.labels = labels
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._images[index], self.labels[index]

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        where = torch.as_tensor(indices)
        return self._images.index_select(0, where), self.labels.index_select(0, where)

    def fingerprint(self) -> str:
        """SHA-256 in hex over pixels and labels."""
        return self._fingerprint


class Images(ImagesInMemory):
    """Grey images (n, height, width) of uint8 and labels (n,), given out as (b, 1, height, width) floats, (b,) int64.

    Pixels are standardised with `mean` and `std`, in units of 0..1.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], mean: float, std: float) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images come with {len(labels)} labels")
        digest = hashlib.sha256(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels).data)
        self._mean, self._std = mean, std
        pixels = torch.from_numpy(np.array(images)).unsqueeze(1).float().div_(255).sub_(mean).div_(std)
        super().__init__(pixels, torch.from_numpy(np.array(labels, np.int64)), digest.hexdigest())

    def preprocessing(self) -> dict[str, Any]:
        """What makes an input of a picture: docs/deployment.md."""
        size = list(self._images.shape[-2:])
        return {"kind": "image", "channels": 1, "size": size, "mean": [self._mean], "std": [self._std]}
