import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx import Ratio, Task


class Ratings(Dataset):
    """Who rates what how: tastes of three dimensions, and some noise."""

    def __init__(self, users, items, ratings, seed):
        draw = torch.Generator().manual_seed(0)
        tastes, kinds = torch.randn(users, 3, generator=draw), torch.randn(items, 3, generator=draw)
        draw.manual_seed(seed + 1)
        self.user = torch.randint(users, (ratings,), generator=draw)
        self.item = torch.randint(items, (ratings,), generator=draw)
        self.rating = (tastes[self.user] * kinds[self.item]).sum(1) + 0.1 * torch.randn(ratings, generator=draw)

    def __len__(self):
        return len(self.rating)

    def __getitem__(self, index):
        return self.user[index], self.item[index], self.rating[index]


class Recommender(nn.Module):
    def __init__(self, users, items, width, sparse=True):
        super().__init__()
        self.users = nn.Embedding(users, width, sparse=sparse)
        self.items = nn.Embedding(items, width, sparse=sparse)
        self.head = nn.Linear(width, 1)

    def forward(self, user, item):
        return self.head(self.users(user) * self.items(item)).squeeze(1)


class Rating(Task):
    def ratios(self, model, batch):
        user, item, rating = batch
        return {"loss": Ratio((model(user, item) - rating).square().sum(), len(rating))}
