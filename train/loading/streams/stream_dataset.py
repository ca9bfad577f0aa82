"""The batches of a stream: of a rank's share of it in training, and of all of it in an evaluation."""

import copy
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any

from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ..batch import Augment, Batch
from ..collation import UserCollation
from ..fetch import PositionDataset, WithNotes
from ..loader import Fetcher, Loader, Timeline
from ..order import Indices, SequentialOrder
from ..shard import Span
from .part_workers import PartWorkers
from .parts import Parts
from .reader import Share, StreamPosition, StreamReader, copied


class _StreamBatches(PositionDataset):
    """Batches of a stream, in place of those of a set with samples by index. Their indices are positions."""

    def __init__(
        self,
        dataset: Dataset[Any],
        where: str,
        augment: Augment | None,
        seed: int,
        collate: UserCollation | None,
        whole: Callable[[int], Span] | None = None,
    ) -> None:
        """`where` names the set in messages."""
        super().__init__(dataset, SequentialOrder(), augment, seed, collate, whole)
        if self._wants_partners:
            raise ConfigError(
                f"{where} is a stream, and `partners` are samples from anywhere in the whole batch, which no rank has read "
                "whole. Leave that parameter out, and mix the samples that the function is given"
            )
        self._where = where
        self._readers: dict[int, StreamReader] = {}  # of parts of which a sample was asked for

    def again(self) -> Any:
        """The same batches from the beginning, in this process."""
        again = copy.copy(self)
        again._dataset, again._readers = copied(self._dataset), {}
        again.notes, again._warned = [], set()
        return again


class StreamShare(_StreamBatches):
    """A rank's share of the training set: the batches of step k have the samples that come next in part k % parts.count."""

    def __init__(
        self,
        dataset: Dataset[Any],
        augment: Augment | None,
        seed: int,
        collate: UserCollation | None,
        timeline: Timeline,
        share: Share,
        parts: Parts,
        *,
        keeps_state: bool,
    ) -> None:
        super().__init__(dataset, "data.train", augment, seed, collate, timeline.whole)
        self.parts = parts
        self.begin = [StreamPosition()] * parts.count  # of each part
        self._timeline = timeline
        self._share = share
        self._keeps_state = keeps_state

    def step(self, span: Span) -> int:
        """The step that takes these positions."""
        return self._timeline.step_of(span.start)

    def part(self, span: Span) -> int:
        return self.step(span) % self.parts.count

    def position(self, part: int) -> StreamPosition:
        """After the last batch of a part."""
        return self._readers[part].position() if part in self._readers else self.begin[part]

    def _fetched(self, indices: Indices, positions: Indices) -> list[Any]:
        start = int(positions[0])
        part = self.part(Span(start, start + len(positions)))
        if part not in self._readers:
            self._readers[part] = self.parts.reader(
                self._dataset, part, self._share, self._seed, self.begin[part], keeps_state=self._keeps_state
            )
        return self._readers[part].samples(len(indices))


class WholeStream(_StreamBatches):
    """All of a stream, as an evaluation takes it, part after part: the batch at given positions, which lie in one part.

    Of a part, later positions are asked for after earlier ones. An earlier one begins a new pass, by a copy of the set that
    was never iterated, so that all passes are the same.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        where: str,
        seed: int,
        collate: UserCollation | None,
        parts: Parts,
        samples: Sequence[int],
    ) -> None:
        """`samples` are those that are taken of each part."""
        super().__init__(dataset, where, None, seed, collate)
        self._parts = parts
        self._starts = list(accumulate(samples, initial=0))
        self._at: dict[int, int] = {}  # where the reader of a part stands

    def again(self) -> Any:
        again = super().again()
        again._at = {}
        return again

    def part(self, span: Span) -> int:
        """The part that these positions lie in."""
        return bisect_right(self._starts, span.start, hi=len(self._starts) - 1) - 1

    def _fetched(self, indices: Indices, positions: Indices) -> list[Any]:
        start = int(positions[0])
        part = self.part(Span(start, start + len(positions)))
        if part not in self._readers or start < self._at[part]:
            self._readers[part], self._at[part] = self._new_pass(part), self._starts[part]
        reader = self._readers[part]
        reader.skip(start - self._at[part])
        found = reader.samples(len(indices))
        self._at[part] = start + len(indices)
        if reader.epoch:
            raise ConfigError(
                f"{self._where} ended before sample {self._at[part]}, of which it had more when it was counted at the "
                "start. An evaluation needs the same samples each time: type eval.batches=… for fewer of them"
            )
        if self._at[part] == self._starts[part + 1]:  # an open file, a shuffle buffer
            del self._readers[part]
        return found

    def _new_pass(self, part: int) -> StreamReader:
        return self._parts.reader(self._dataset, part, Share(), self._seed, StreamPosition(), copied=copied)


@dataclass(frozen=True)
class WholeStreamFetcher(Fetcher):
    """Fetches the batches of a WholeStream; of several processes each reads parts of its own."""

    def _questions(self, spans: Iterable[Span]) -> Iterable[tuple[int, Span]]:
        source = self.source
        assert isinstance(source, WholeStream)
        return ((source.part(span), span) for span in spans)

    def _begin(self) -> PartWorkers[tuple[Batch, list[str]]]:
        pin, shared = self.pin_memory, self.shared
        return PartWorkers(WithNotes(self.source), self.workers, self.prefetch, pin, shared=shared, stay=self.stay)


_OfStep = tuple[list[Batch], list[str], int, int, StreamPosition]


class _WithPosition(Dataset[Any]):
    """The batches of a step, with the new notes, the end of the last span, its part, and where that stands then."""

    def __init__(self, source: StreamShare) -> None:
        self._source = source

    def __getitems__(self, spans: Sequence[Span]) -> _OfStep:
        batches = [self._source.__getitems__(span) for span in spans]
        notes, self._source.notes = self._source.notes, []
        part = self._source.part(spans[0])
        return batches, notes, spans[-1].stop, part, self._source.position(part)


@dataclass(frozen=True)
class StreamFetcher(Fetcher):
    """Fetches the batches of a StreamShare, and keeps where it stands: in this process, or ahead of time in others, each
    with parts of its own."""

    batch: int = 1  # the global batch, samples
    _after: dict[int, dict[int, StreamPosition]] = field(
        default_factory=dict
    )  # by part, by the end of the last batches

    @property
    def _own(self) -> StreamShare:
        assert isinstance(self.source, StreamShare)
        return self.source

    @property
    def parts(self) -> int:
        return self._own.parts.count

    def begin_at(self, positions: Sequence[StreamPosition]) -> None:
        """What is asked for next is what follows these positions of the parts."""
        self._own.begin = list(positions)
        self._after.clear()

    def positions(self, taken: int) -> list[StreamPosition]:
        """Where the parts stand when the run has taken `taken` samples, over all ranks: now, or some steps before."""
        found = list(self._own.begin)
        for part, after in self._after.items():
            if ends := [end for end in after if end <= taken]:
                found[part] = after[max(ends)]
        return found

    def _answers(self, spans: Iterable[Span]) -> Iterator[tuple[Batch, list[str]]]:
        self._after.clear()
        for batches, notes, end, part, position in self._steps(spans):
            self._keep(part, end, position)
            yield from ((batch, notes) for batch in batches)

    def _steps(self, spans: Iterable[Span]) -> Iterator[_OfStep]:
        own = self._own
        steps = (tuple(spans_of_step) for _, spans_of_step in groupby(spans, own.step))
        if self.workers == 0:
            return map(_WithPosition(own.again()).__getitems__, steps)
        pin, count = self.pin_memory, min(self.workers, self.parts)
        processes: PartWorkers[_OfStep] = PartWorkers(
            _WithPosition(own), count, self.prefetch, pin, shared=self.shared, stay=False
        )
        return processes.answers((own.part(asked[0]), asked) for asked in steps)

    def _keep(self, part: int, end: int, position: StreamPosition) -> None:
        after = self._after.setdefault(part, {})
        after[end] = position
        settled = sorted(old for old in after if old <= end - 4 * self.batch)
        for old in settled[:-1]:
            del after[old]


@dataclass(frozen=True)
class StreamLoader(Loader):
    """The loader of a stream. Where it has no length, epochs are the passes over all of its parts that this rank ended."""

    has_length: bool = False

    def epochs(self, position: int) -> float:
        if self.has_length:
            return super().epochs(position)
        assert isinstance(self.fetcher, StreamFetcher)
        return float(min(part.epoch for part in self.fetcher.positions(position)))
