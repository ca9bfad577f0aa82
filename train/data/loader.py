"""The batches of this rank, from any step on: nothing is read and thrown away."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, tee

from train.data.batch import Batch
from train.data.source import Source
from train.data.split import Span, split
from train.data.workers import fetched


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


@dataclass(frozen=True)
class Work:
    """What one rank does in one step: its micro-batches, each with its first position, of a batch of `samples`."""

    step: int
    samples: int
    pieces: list[tuple[int, Batch]]


@dataclass(frozen=True)
class Fetcher:
    """How batches are fetched: here, or ahead of time in `workers` processes, `prefetch` batches each."""

    source: Source
    workers: int
    prefetch: int
    pin_memory: bool

    def batches(self, spans: Iterable[Span]) -> Iterator[Batch]:
        """One batch a span of positions, in their order."""
        if self.workers == 0:
            return (self.source.__getitems__(span) for span in spans)
        return fetched(self.source, spans, self.workers, self.prefetch, self.pin_memory)


@dataclass(frozen=True)
class Loader:
    fetcher: Fetcher
    timeline: Timeline
    micro_batch: int | None
    rank: int
    size: int

    def from_step(self, first: int) -> Iterator[Work]:
        """The rank's work of the steps `first`, first+1, … to the end of the timeline."""
        steps = range(first, self.timeline.steps)
        asked, taken = tee(self._spans(step) for step in steps)  # the fetcher may be ahead
        batches = self.fetcher.batches(chain.from_iterable(asked))
        for step, spans in zip(steps, taken, strict=True):
            whole = self.timeline.span(step)
            pieces = [(span.start, next(batches)) for span in spans]
            yield Work(step, whole.stop - whole.start, pieces)

    def rehearsal(self) -> tuple[Span, Batch]:
        """A micro-batch as large as this rank will work on, and its positions, for work that does not count."""
        start, samples = self.timeline.position, self.timeline.global_batch
        first, last = split(samples, self.micro_batch, self.rank, self.size)[-1]
        span = Span(start + first, start + last)
        one = replace(self.fetcher, workers=min(1, self.fetcher.workers), prefetch=1)
        return span, next(one.batches([span]))

    def _spans(self, step: int) -> list[Span]:
        whole = self.timeline.span(step)
        spans = split(whole.stop - whole.start, self.micro_batch, self.rank, self.size)
        return [Span(whole.start + span.start, whole.start + span.stop) for span in spans]
