"""Gradients of embedding tables that hold the rows of a batch alone (nn.Embedding(sparse=True))."""

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

_LAYERS = (nn.Embedding, nn.EmbeddingBag)
_MARK = "has_sparse_gradient"


def mark_tables(model: nn.Module) -> None:
    """Mark the tables whose layers give sparse gradients. A copy that has a parameter's attributes is marked, too."""
    for module in model.modules():
        if isinstance(module, _LAYERS) and module.sparse:
            setattr(module.weight, _MARK, True)


def is_table(parameter: torch.Tensor) -> bool:
    """Whether the gradient of `parameter` is sparse: some rows of it, with their numbers."""
    return hasattr(parameter, _MARK)


def no_rows(table: torch.Tensor) -> torch.Tensor:
    """A zero that depends on none of the table's rows, so that its gradient is sparse and has none."""
    return F.embedding(torch.zeros(0, dtype=torch.long, device=table.device), table, sparse=True).sum()


class SparseGradients:
    """Those of `tables`, after a backward: of each row once (coalesced), or None where no rank has met a row."""

    def __init__(self, tables: Sequence[nn.Parameter]) -> None:
        self.tables = tables

    def combine(self, gathered: Iterable[Sequence[tuple[torch.Tensor, torch.Tensor]] | None], ranks: int) -> None:
        """Set each to the mean over the ranks, whose row numbers, shape (n,), and rows, shape (n, width), are added up
        in the order of the ranks."""
        for table, parts in zip(self.tables, gathered, strict=True):
            if parts is None:
                table.grad = None
                continue
            rows, values = (torch.cat(of_ranks) for of_ranks in zip(*parts, strict=True))
            values = values / ranks if ranks > 1 else values
            table.grad = torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False).coalesce()

    def own(self) -> list[tuple[torch.Tensor, torch.Tensor] | None]:
        """The row numbers and rows of this rank; None where its samples met no table at all."""
        found: list[tuple[torch.Tensor, torch.Tensor] | None] = []
        for table in self.tables:
            gradient = None if table.grad is None else table.grad.coalesce()
            found.append(None if gradient is None else (gradient.indices()[0], gradient.values()))
        return found

    def norms(self) -> list[torch.Tensor]:
        return [cast(torch.Tensor, torch.linalg.vector_norm(values)) for values in self._values()]

    def divide(self, divisor: torch.Tensor) -> None:
        for values in self._values():
            values.div_(divisor)

    def drop(self) -> None:
        for table in self.tables:
            table.grad = None

    def _values(self) -> Iterator[torch.Tensor]:
        return (table.grad.values() for table in self.tables if table.grad is not None)
