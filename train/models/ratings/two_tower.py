"""Two towers (Covington et al. 2016; Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
Recommendations"): a network for users, a network for items, and the product of what they give."""

import torch
from torch import nn


class TwoTower(nn.Module):
    """The rating of an item by a user, from a vector of each that can be computed apart, as for a search over all items."""

    def __init__(self, users: int, items: int, width: int, hidden: int, mean: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.user_tower, self.item_tower = (_tower(rows, width, hidden, dropout) for rows in (users, items))
        self.user_bias, self.item_bias = nn.Embedding(users, 1), nn.Embedding(items, 1)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Ratings (b,) of items (b,) by users (b,)."""
        product = (self.user_tower(users) * self.item_tower(items)).sum(1)
        rating: torch.Tensor = self.mean + product + self.user_bias(users).squeeze(1) + self.item_bias(items).squeeze(1)
        return rating


def _tower(rows: int, width: int, hidden: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, width)
    nn.init.normal_(last.weight, std=0.1 * hidden**-0.5)
    return nn.Sequential(nn.Embedding(rows, width), nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), last)
