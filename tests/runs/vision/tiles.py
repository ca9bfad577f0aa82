"""Small pictures with a class for each pixel."""

import torch
from torch.utils.data import Dataset


class Tiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """`samples` pictures (3, 12, 12), whose pixels are of the class of their largest channel; some are not labelled."""

    def __init__(self, samples: int) -> None:
        draw = torch.Generator().manual_seed(samples)
        self.images = torch.randn(samples, 3, 12, 12, generator=draw)
        self.masks = self.images.argmax(1).to(torch.uint8)
        self.masks[torch.rand(self.masks.shape, generator=draw) < 0.1] = 255

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index], self.masks[index]
