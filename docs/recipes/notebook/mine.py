"""Data and model, which stay as they are."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset


class Digits(Dataset):
    def __init__(self, split):
        images, labels = load_digits(return_X_y=True)
        rows = slice(0, 1440) if split == "train" else slice(1440, None)
        self.images = torch.tensor(images[rows], dtype=torch.float32) / 16
        self.labels = labels[rows]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images):
        return self.layers(images)
