"""Data loader of a rank: its micro-batches from any step on, without reading earlier ones."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, tee
from typing import Any, Protocol

from .batch import Batch
from .fetch import PositionDataset, WithNotes
from .shard import Span, split
from .workers.shared_dataset import SharedDataset
from .workers.workers import Workers

TRIED = 16  # batches, each of another step, of which one is looked for that a collate left something of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timeline:
    """Which positions each step takes: `global_batch` a step from (`step`, `position`) on, until `steps` or `end`.

    The last batch is short where `end` is no multiple of the batch.
    """

    step: int
    position: int
    steps: int
    end: int
    global_batch: int

    def span(self, step: int) -> Span:
        """Positions of the samples of 0-based `step`."""
        start = self.position + (step - self.step) * self.global_batch
        return Span(start, min(start + self.global_batch, self.end))

    def whole(self, position: int) -> Span:
        """Positions of the batch that `position` lies in."""
        return self.span(self.step_of(position))

    def step_of(self, position: int) -> int:
        """The 0-based step that takes `position`."""
        return self.step + (position - self.position) // self.global_batch


@dataclass(frozen=True)
class StepBatch:
    """One rank's share of a step: its micro-batches, each with its first position; `samples` is the global batch.

    `most` is the largest number of micro-batches that a rank has in this step.
    """

    step: int
    samples: int
    micro_batches: list[tuple[int, Batch]]
    most: int


class AnswersQuestions(Protocol):
    """Processes that fetch batches."""

    def answers(self, questions: Iterable[Any]) -> Iterator[tuple[Batch, list[str]]]: ...


@dataclass(frozen=True)
class Fetcher:
    """Fetches batches in this process, or ahead of time in `workers` processes, `prefetch` batches each.

    With `stay` the processes are kept for the next iteration. They share with all that have the same `shared` what data
    sets hold.
    """

    source: PositionDataset
    workers: int
    prefetch: int
    pin_memory: bool
    stay: bool = False
    shared: SharedDataset = field(default_factory=SharedDataset)
    _said: set[str] = field(default_factory=set)

    def batches(self, spans: Iterable[Span]) -> Iterator[Batch]:
        """One batch a span of positions, in their order."""
        for batch, notes in self._answers(spans):
            for note in notes:
                if note not in self._said:
                    self._said.add(note)
                    logger.warning(note)
            yield batch

    def _answers(self, spans: Iterable[Span]) -> Iterator[tuple[Batch, list[str]]]:
        if self.workers == 0:
            return map(WithNotes(self.source).__getitems__, spans)
        return (self._staying if self.stay else self._begin()).answers(self._questions(spans))

    def _questions(self, spans: Iterable[Span]) -> Iterable[Any]:
        """What the processes are asked for these batches."""
        return spans

    @cached_property
    def _staying(self) -> AnswersQuestions:
        return self._begin()

    def _begin(self) -> AnswersQuestions:
        pin, shared = self.pin_memory, self.shared
        return Workers(WithNotes(self.source), self.workers, self.prefetch, pin, shared=shared, stay=self.stay)


def _first_of_some(fetcher: Fetcher, spans: Sequence[Span]) -> tuple[Span, Batch]:
    """The first of the batches of which a collate left something; the first one, None, where there is none."""
    batches = zip(spans, fetcher.batches(spans), strict=False)
    return next(((span, batch) for span, batch in batches if batch is not None), (spans[0], None))


@dataclass(frozen=True)
class SampleBatch:
    """Batches for the sanity check: the samples of `span`, as many on each rank; a single sample if the run has one.

    Where a collate leaves nothing of a rank's first batch, it takes another rank's, or one of a later step: a task that
    waits for other ranks in its forward is tried by all or by none.
    """

    span: Span
    batch: Batch
    few: Batch | None  # the run's first two samples, where they were asked for
    single: Batch | None


@dataclass(frozen=True)
class Loader:
    fetcher: Fetcher
    timeline: Timeline
    micro_batch: int | None
    rank: int
    size: int
    epoch_samples: int

    def from_step(self, first: int) -> Iterator[StepBatch]:
        """The rank's work of the steps `first`, first+1, … to the end of the timeline."""
        steps = range(first, self.timeline.steps)
        asked, taken = tee(self._spans(step) for step in steps)  # the fetcher prefetches
        batches = self.fetcher.batches(chain.from_iterable(asked))
        for step, spans in zip(steps, taken, strict=True):
            whole = self.timeline.span(step)
            micro_batches = [(span.start, next(batches)) for span in spans]
            samples = whole.stop - whole.start
            yield StepBatch(step, samples, micro_batches, most=len(self._shares(samples, rank=0)))  # `split` favours it

    def sample_batch(self, few: bool = False) -> SampleBatch:
        """A micro-batch as large as the smallest share of a rank in a whole batch, and smaller ones to try."""
        start = self.timeline.position
        of_ranks = [self._shares(self.timeline.global_batch, rank)[-1] for rank in range(self.size)]
        first = start + of_ranks[self.rank].start
        span = Span(first, first + min(share.stop - share.start for share in of_ranks))
        asked = {"batch": span}
        if few:
            asked["few"] = Span(start, start + 2)
        if self.step_with_single_sample() is not None and span.stop - span.start > 1:
            asked["single"] = Span(start, start + 1)
        one = replace(self.fetcher, workers=min(1, self.fetcher.workers), prefetch=1)
        found = dict(zip(asked, one.batches(asked.values()), strict=True))
        if found["batch"] is None:  # a collate left nothing of it
            length = span.stop - span.start
            starts = [start + share.start for share in of_ranks]
            starts += [at for at in range(start, self.timeline.end - length, self.timeline.global_batch)][1:TRIED]
            span, found["batch"] = _first_of_some(one, [Span(at, at + length) for at in starts])
        return SampleBatch(span, found["batch"], found.get("few"), found.get("single"))

    def epochs(self, position: int) -> float:
        """The passes over the data up to `position`."""
        return position / self.epoch_samples

    def indices(self, step: int) -> list[int]:
        """The sample indices of the global batch of 0-based `step`."""
        return self.fetcher.source.indices(self.timeline.span(step))

    def step_with_single_sample(self) -> int | None:
        """The first step, 0-based, in which some rank has a micro-batch of one sample, or None."""
        alone = (
            step for step in self._distinct_steps() if 1 in {size for sizes in self._sizes(step) for size in sizes}
        )
        return next(alone, None)

    def step_in_pieces(self) -> int | None:
        """The first step, 0-based, in which some rank has more than one micro-batch, or None."""
        return next((step for step in self._distinct_steps() if max(map(len, self._sizes(step))) > 1), None)

    def step_with_unequal_shares(self) -> int | None:
        """The first step, 0-based, in which not all ranks have as many micro-batches of one size, or None."""
        return next(
            (step for step in self._distinct_steps() if len({tuple(sizes) for sizes in self._sizes(step)}) > 1), None
        )

    def _distinct_steps(self) -> list[int]:
        """A step with a whole batch, if there is one, and the last."""
        return sorted({self.timeline.step, self.timeline.steps - 1})

    def _sizes(self, step: int) -> list[list[int]]:
        """Of the micro-batches of each rank."""
        whole = self.timeline.span(step)
        shares = [self._shares(whole.stop - whole.start, rank) for rank in range(self.size)]
        return [[share.stop - share.start for share in of_rank] for of_rank in shares]

    def _shares(self, samples: int, rank: int) -> list[Span]:
        return split(samples, self.micro_batch, rank, self.size)

    def _spans(self, step: int) -> list[Span]:
        whole = self.timeline.span(step)
        spans = self._shares(whole.stop - whole.start, self.rank)
        return [Span(whole.start + span.start, whole.start + span.stop) for span in spans]
