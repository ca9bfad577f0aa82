"""Matrix factorisation with biases (Koren, Bell & Volinsky 2009, "Matrix Factorization Techniques for Recommender
Systems", equation 5)."""

import torch
from torch import nn

_STD = 0.05  # of the drawn vectors


class MatrixFactorization(nn.Module):
    """The rating of an item by a user: a mean, a bias of each, and the product of a vector of `width` numbers of each.

    `dropout` drops products of single numbers in training. With `sparse`, tables have sparse gradients, which
    torch.optim.SparseAdam takes.
    """

    def __init__(
        self, users: int, items: int, width: int, mean: float, dropout: float = 0.0, sparse: bool = False
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.users = nn.Embedding(users, width, sparse=sparse)
        self.items = nn.Embedding(items, width, sparse=sparse)
        self.user_bias = nn.Embedding(users, 1, sparse=sparse)
        self.item_bias = nn.Embedding(items, 1, sparse=sparse)
        self.dropout = nn.Dropout(dropout)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=_STD)
        for table in (self.user_bias, self.item_bias):
            nn.init.zeros_(table.weight)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Ratings (b,) of items (b,) by users (b,)."""
        product = self.dropout(self.users(users) * self.items(items)).sum(1)
        rating: torch.Tensor = self.mean + product + self.user_bias(users).squeeze(1) + self.item_bias(items).squeeze(1)
        return rating
