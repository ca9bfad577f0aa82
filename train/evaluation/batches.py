"""The batches of an evaluation, and which rank evaluates which: those of each part of a set apart."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, zip_longest
from math import ceil

from ..loading.shard import Span, run_of


def rounds(parts: Sequence[int], batch: int, batches: int) -> tuple[int, ...]:
    """The samples of each part, where `batches` are taken in turn: the first of each part, then the second, …"""
    whole = [ceil(samples / batch) for samples in parts]
    turns = sorted((turn, part) for part, count in enumerate(whole) for turn in range(min(count, batches)))[:batches]
    taken = [sum(part == own for _, own in turns) for part in range(len(parts))]
    return tuple(min(samples, count * batch) for samples, count in zip(parts, taken, strict=True))


@dataclass(frozen=True)
class Batches:
    """Batches of `batch` samples of each part, numbered part after part. `parts` are their samples, any of them none.

    A set that is not cut is one part, of which all ranks take batches. Of several each rank takes some whole.
    """

    parts: tuple[int, ...]
    batch: int

    @property
    def count(self) -> int:
        return self._numbers[-1]

    def span(self, number: int) -> Span:
        """The positions of the samples of batch `number`."""
        part = bisect_right(self._numbers, number) - 1
        start = self._starts[part] + (number - self._numbers[part]) * self.batch
        return Span(start, min(start + self.batch, self._starts[part + 1]))

    def share(self, rank: int, size: int, *, in_order: bool, workers: int = 0) -> Sequence[int]:
        """The numbers of a rank's batches: dealt in turn, or `in_order` consecutive ones, rank after rank.

        Where ranks take whole parts, several workers read several at a time, so their batches come in turn.
        """
        if len(self.parts) == 1:
            if not in_order:
                return range(rank, self.count, size)
            return range(ceil(self.count * rank / size), ceil(self.count * (rank + 1) / size))
        first, end = run_of(len(self.parts), rank, size)
        at_once = 1 if in_order else max(1, workers)
        numbers = [range(self._numbers[part], self._numbers[part + 1]) for part in range(first, end)]
        together = [zip_longest(*numbers[i : i + at_once]) for i in range(0, len(numbers), at_once)]
        return [number for turn in chain(*together) for number in turn if number is not None]

    def plan(
        self, size: int, *, in_order: bool, equal: bool, workers: int
    ) -> list[tuple[Sequence[int], Sequence[int]]]:
        """Of each rank the numbers of its batches, as `share` gives them; where all are to have `equal` numbers also with
        those that it evaluates once more.
        """
        shares = [self.share(rank, size, in_order=in_order, workers=workers) for rank in range(size)]
        most = max(map(len, shares)) if equal else 0
        return [(own, [*own, *range(most - len(own))]) for own in shares]

    def first(self, rank: int, size: int) -> int:
        """One of the rank's batches, to try; any where it has none."""
        return next(iter(self.share(rank, size, in_order=False)), 0)

    def with_single_sample(self) -> int | None:
        """The number of a batch of one sample, if there is one."""
        odd = [part for part, samples in enumerate(self.parts) if samples % self.batch == 1 or samples == 1]
        return self._numbers[odd[-1] + 1] - 1 if odd else None

    def are_equal(self, size: int) -> bool:
        """Whether all ranks have as many batches, all of one size."""
        counts = {len(self.share(rank, size, in_order=False)) for rank in range(size)}
        return len(counts) == 1 and not any(samples % self.batch for samples in self.parts)

    @cached_property
    def _numbers(self) -> list[int]:
        """The number of the first batch of each part, and their total."""
        return list(accumulate((ceil(samples / self.batch) for samples in self.parts), initial=0))

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(self.parts, initial=0))
