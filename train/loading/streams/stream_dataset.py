"""The batches of a stream: of a rank's share of it in training, and of all of it in an evaluation."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ..batch import Augment, Batch
from ..collation import UserCollation
from ..fetch import PositionDataset
from ..loader import Fetcher, Loader
from ..order import Indices, SequentialOrder
from ..shard import Span
from ..workers.workers import Workers
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
        self._reader: StreamReader | None = None  # once a sample was asked for

    def again(self) -> Any:
        """The same batches from the beginning, in this process."""
        again = copy.copy(self)
        again._dataset, again._reader = copied(self._dataset), None
        again.notes, again._warned = [], set()
        return again


class StreamShare(_StreamBatches):
    """A rank's share of the training set: each batch has the samples that come next."""

    def __init__(
        self,
        dataset: Dataset[Any],
        augment: Augment | None,
        seed: int,
        collate: UserCollation | None,
        whole: Callable[[int], Span],
        share: Share,
        *,
        keeps_state: bool,
    ) -> None:
        super().__init__(dataset, "data.train", augment, seed, collate, whole)
        self.begin = StreamPosition()
        self._share = share
        self._keeps_state = keeps_state

    def position(self) -> StreamPosition:
        """After the last batch."""
        return self.begin if self._reader is None else self._reader.position()

    def _fetched(self, indices: Indices, positions: Indices) -> list[Any]:
        if self._reader is None:
            self._reader = StreamReader(
                self._dataset, self._share, self._seed, self.begin, keeps_state=self._keeps_state
            )
        return self._reader.samples(len(indices))


class WholeStream(_StreamBatches):
    """All of a stream, as an evaluation takes it: the batch at given positions, later ones after earlier ones.

    An earlier position begins a new pass, by a copy of the set that was never iterated, so that all passes are the same.
    """

    _at = 0

    def _fetched(self, indices: Indices, positions: Indices) -> list[Any]:
        start = int(positions[0])
        if self._reader is None or start < self._at:
            self._reader, self._at = self._new_pass(), 0
        self._reader.skip(start - self._at)
        found = self._reader.samples(len(indices))
        self._at = start + len(indices)
        if self._reader.epoch:
            raise ConfigError(
                f"{self._where} ended before sample {self._at}, of which it had more when it was counted at the start. An "
                "evaluation needs the same samples each time: type eval.batches=… for fewer of them"
            )
        return found

    def _new_pass(self) -> StreamReader:
        return StreamReader(copied(self._dataset), Share(), self._seed, StreamPosition())


class _WithPosition(Dataset[Any]):
    """The batches of a share, each with its new notes, the end of its span, and the position after it."""

    def __init__(self, source: StreamShare) -> None:
        self._source = source

    def __getitems__(self, span: Span) -> tuple[Batch, list[str], int, StreamPosition]:
        batch = self._source.__getitems__(span)
        notes, self._source.notes = self._source.notes, []
        return batch, notes, span.stop, self._source.position()


@dataclass(frozen=True)
class StreamFetcher(Fetcher):
    """Fetches the batches of a StreamShare, in this process or ahead of time in one other, and keeps where it stands."""

    batch: int = 1  # the global batch, samples
    _after: dict[int, StreamPosition] = field(default_factory=dict)  # by the end of the last batches

    @property
    def _own(self) -> StreamShare:
        assert isinstance(self.source, StreamShare)
        return self.source

    def begin_at(self, position: StreamPosition) -> None:
        """What is asked for next is what follows `position`."""
        self._own.begin = position
        self._after.clear()

    def position(self, taken: int) -> StreamPosition:
        """Where this rank stands when the run has taken `taken` samples, over all ranks: now, or some steps before."""
        ends = [end for end in self._after if end <= taken]
        return self._after[max(ends)] if ends else self._own.begin

    def _answers(self, spans: Iterable[Span]) -> Iterator[tuple[Batch, list[str]]]:
        self._after.clear()
        answers: Iterator[tuple[Batch, list[str], int, StreamPosition]]
        if self.workers == 0:
            answers = map(_WithPosition(self._own.again()).__getitems__, spans)
        else:
            source, pin, shared = _WithPosition(self._own), self.pin_memory, self.shared
            answers = Workers(source, 1, self.prefetch, pin, shared=shared, stay=False).answers(spans)
        for batch, notes, end, position in answers:
            self._after[end] = position
            for old in [old for old in self._after if old <= end - 4 * self.batch]:
                del self._after[old]
            yield batch, notes


@dataclass(frozen=True)
class StreamLoader(Loader):
    """The loader of a stream. Where it has no length, epochs are the passes that this rank has begun."""

    has_length: bool = False

    def epochs(self, position: int) -> float:
        if self.has_length:
            return super().epochs(position)
        assert isinstance(self.fetcher, StreamFetcher)
        return float(self.fetcher.position(position).epoch)
