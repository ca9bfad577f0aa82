"""Neural collaborative filtering (He et al. 2017, "Neural Collaborative Filtering", section 3.4: NeuMF)."""

from itertools import pairwise

import torch
from torch import nn

_STD = 0.05  # of the drawn vectors


class NeuMF(nn.Module):
    """The rating of an item by a user, from the product of two vectors and from a network over two others.

    `width` are the numbers of each vector, `hidden` the widths of the network's layers.
    """

    def __init__(
        self, users: int, items: int, width: int, hidden: list[int], mean: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        tables = [nn.Embedding(rows, width) for rows in (users, items, users, items)]
        self.product_users, self.product_items, self.network_users, self.network_items = tables
        for table in tables:
            nn.init.normal_(table.weight, std=_STD)
        sizes = [2 * width, *hidden]
        layers = [
            nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)) for before, after in pairwise(sizes)
        ]
        self.network = nn.Sequential(*layers)
        self.head = nn.Linear(width + sizes[-1], 1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Ratings (b,) of items (b,) by users (b,)."""
        product = self.product_users(users) * self.product_items(items)
        hidden = self.network(torch.cat([self.network_users(users), self.network_items(items)], 1))
        rating: torch.Tensor = self.head(torch.cat([product, hidden], 1)).squeeze(1)
        return self.mean + rating
