"""Gather the rows of sparse gradients from all ranks, as many as each has."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from ..distributed.world import World

Rows = tuple[torch.Tensor, torch.Tensor]


def gather_rows(own: Sequence[Rows | None], tables: Sequence[torch.Tensor], world: World) -> list[list[Rows] | None]:
    """For each table the row numbers and rows of every rank, in rank order; None where no rank has any.

    All ranks call it with the same tables. Each sends as many rows as the one that has most; the host waits for their
    number.
    """
    if world.size == 1:
        return [None if rows is None else [rows] for rows in own]
    counts = torch.tensor([-1 if rows is None else len(rows[0]) for rows in own], device=world.device)
    of_ranks = [torch.empty_like(counts) for _ in range(world.size)]
    dist.all_gather(of_ranks, counts)  # all ranks take part, in this and what follows, in one order
    numbers = torch.stack(of_ranks).tolist()
    return [
        _gather(own[i], table, [of_rank[i] for of_rank in numbers], world)
        if max(of_rank[i] for of_rank in numbers) >= 0
        else None
        for i, table in enumerate(tables)
    ]


def _gather(own: Rows | None, table: torch.Tensor, counts: Sequence[int], world: World) -> list[Rows]:
    most = max(counts)
    if most == 0:
        return [(table.new_zeros(0, dtype=torch.long), table.new_zeros(0, *table.shape[1:]))]
    numbers = torch.zeros(most, dtype=torch.long, device=table.device)
    values = torch.zeros(most, *table.shape[1:], dtype=table.dtype, device=table.device)
    if own is not None:
        numbers[: len(own[0])], values[: len(own[1])] = own
    all_numbers = [torch.empty_like(numbers) for _ in counts]
    all_values = [torch.empty_like(values) for _ in counts]
    # All ranks take part in both.
    dist.all_gather(all_numbers, numbers)
    dist.all_gather(all_values, values)
    return [(n[: max(k, 0)], v[: max(k, 0)]) for n, v, k in zip(all_numbers, all_values, counts, strict=True)]
