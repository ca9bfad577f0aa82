"""The source article's ConvNet."""

import torch
from torch import nn


class ConvNet(nn.Module):
    """Two convolutions and two fully connected layers for grey images of 28x28; 431,080 parameters with 10 classes."""

    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, kernel_size=5)
        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(800, 500)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc2 = nn.Linear(500, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (b, 1, 28, 28) to logits (b, classes)."""
        x = self.pool(self.conv1(images).relu())  # (b, 20, 12, 12)
        x = self.pool(self.conv2(x).relu())  # (b, 50, 4, 4)
        x = self.fc1(x.flatten(1)).relu()
        logits: torch.Tensor = self.fc2(self.dropout(x))
        return logits
