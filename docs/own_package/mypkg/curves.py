import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx import Ratio, Task


class Curves(Dataset):
    """Points (x, y) of a sine with noise."""

    def __init__(self, points, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.rand(points, 1, generator=generator) * 6
        self.y = self.x.sin() + 0.1 * torch.randn(points, 1, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x)


class Regression(Task):
    def ratios(self, model, batch):
        x, y = batch
        squares = (model(x) - y).square().sum()
        return {"loss": Ratio(squares, len(x))}
