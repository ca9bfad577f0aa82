"""Split a global batch into the micro-batches of each rank. The batch is the same for any number of ranks."""

from math import ceil
from typing import NamedTuple


class Span(NamedTuple):
    """Samples start..stop-1 of a batch."""

    start: int
    stop: int


def split(samples: int, micro_batch: int | None, rank: int, size: int) -> list[Span]:
    """The micro-batches of one rank, in order, for a batch of `samples` samples.

    A fixed micro-batch cuts the batch alike for any number of ranks, and the ranks take runs of whole pieces: 8 pieces
    on 3 ranks are 3, 3 and 2. Without one each rank takes its share in one piece: 64 on 3 ranks is 22, 21 and 21. Where
    nothing is left for a rank, as can happen in the last, short batch, its list is empty.
    """
    if micro_batch is None:
        span = run_of(samples, rank, size)
        return [span] if span.stop > span.start else []
    pieces = run_of(ceil(samples / micro_batch), rank, size)
    return [Span(i * micro_batch, min((i + 1) * micro_batch, samples)) for i in range(pieces.start, pieces.stop)]


def run_of(items: int, rank: int, size: int) -> Span:
    """Rank's run of 0..items-1 when the first ranks take one more where it does not divide."""
    each, more = divmod(items, size)
    start = rank * each + min(rank, more)
    return Span(start, start + each + (rank < more))
