"""Read a stream: from any position on, again and again, each sample with a seed of its own."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset
from torch.utils.data._utils import worker as torch_worker

from phalanx.exit.codes import ConfigError

from ..fetch import current_device, has_getitem
from ..rng import integer, seed_all

_STREAM = 8  # separates these seeds from other uses of the run's seed


def is_stream(dataset: Any) -> bool:
    """Whether samples are to be had by iterating alone."""
    kind = type(dataset)
    if isinstance(dataset, IterableDataset):
        return True
    own = has_getitem(dataset) or hasattr(kind, "__getitems__")
    return hasattr(kind, "__iter__") and not (own and hasattr(kind, "__len__"))


def copied(dataset: Any) -> Any:
    """A copy of a stream that was not iterated yet, to be iterated apart. Raises ConfigError."""
    try:
        return copy.deepcopy(dataset)
    except Exception as error:
        raise ConfigError(
            f"{type(dataset).__name__} cannot be copied ({type(error).__name__}: {error}), and a stream is read at several "
            "places: for the checks before the first step, and for training. Open files and connections in __iter__, not "
            "in __init__"
        ) from error


@dataclass(frozen=True)
class Share:
    """Which of the samples that a rank reads it keeps: each `size`-th from `rank` on; (0, 1) is all of them.

    `part` tells the random numbers of ranks apart that read different samples. It is 0 where all read the same ones, which
    have to come out alike.
    """

    rank: int = 0
    size: int = 1
    part: int = 0


@dataclass(frozen=True)
class StreamPosition:
    """How far a part is read: samples of pass `epoch`, samples in `total`, and what the set's state_dict() gave.

    Also samples that other ranks keep are counted. `state` is None where the position is found by counting.
    """

    epoch: int = 0
    read: int = 0
    total: int = 0
    state: Any = None


class StreamReader:
    """Reads `dataset` from `position` on; at its end it begins again, with `set_epoch(epoch)` where the set has that.

    Python's, NumPy's and torch's generators are seeded before each sample, by how many were read before it. A position
    without a state is found by reading: a set with `set_epoch` from the beginning of the pass on, any other, whose passes
    may differ by what it remembers, from the beginning of the first.
    """

    def __init__(
        self,
        dataset: Any,
        share: Share,
        seed: int,
        position: StreamPosition,
        *,
        keeps_state: bool = False,
        part: int | None = None,
        info: torch_worker.WorkerInfo | None = None,
    ) -> None:
        """`part` tells the random numbers of parts apart. `info` is what the set sees as its data worker."""
        self._dataset = dataset
        self._share = share
        self._seed = integer(seed, _STREAM, share.part, *(() if part is None else (part,)))
        self._keeps_state = keeps_state
        self._info = info
        self._iterator: Iterator[Any] = iter(())
        self._read, self._total, self.epoch = 0, 0, 0
        with self._seen_as_worker():
            self._go_to(position)

    def _go_to(self, position: StreamPosition) -> None:
        dataset = self._dataset
        if position.state is not None:
            self._total = position.total
            self._begin(position.epoch, position.state)
            self._read = position.read
            return
        passes = callable(getattr(dataset, "set_epoch", None))
        self._total = position.total - position.read if passes else 0
        self._begin(position.epoch if passes else 0)
        while self._total < position.total:
            self._next()
        if (self.epoch, self._read) != (position.epoch, position.read):
            raise ConfigError(
                f"{type(dataset).__name__} gave {position.read} samples of pass {position.epoch + 1} before the save, and "
                "a pass ends elsewhere now: it does not give the same samples again. Give it state_dict() and "
                "load_state_dict(), or type run.fresh=true to begin anew"
            )

    def samples(self, count: int) -> list[Any]:
        """The next samples that this rank keeps. Raises ConfigError where a whole pass has none."""
        found: list[Any] = []
        with self._seen_as_worker():
            while len(found) < count:
                mine, sample = self._next()
                if mine:
                    found.append(sample)
        return found

    def samples_of_pass(self, most: int | None) -> Iterator[Any]:
        """What is left of this pass, up to `most` samples, whoever keeps them."""
        while most is None or most > 0:
            try:
                with self._seen_as_worker():
                    self._seed_next()
                    sample = next(self._iterator)
            except StopIteration:
                return
            self._read += 1
            self._total += 1
            yield sample
            most = None if most is None else most - 1

    def skip(self, count: int) -> None:
        with self._seen_as_worker():
            for _ in range(count):
                self._next()

    def position(self) -> StreamPosition:
        with self._seen_as_worker():
            state = self._dataset.state_dict() if self._keeps_state else None
        return StreamPosition(self.epoch, self._read, self._total, state)

    def _begin(self, epoch: int, state: Any = None) -> None:
        self._seed_next()
        self.epoch, self._read = epoch, 0
        if callable(set_epoch := getattr(self._dataset, "set_epoch", None)):
            set_epoch(epoch)
        if state is not None:
            self._dataset.load_state_dict(state)
        self._iterator = iter(self._dataset)

    def _next(self) -> tuple[bool, Any]:
        """The next sample, and whether this rank keeps it."""
        while True:
            self._seed_next()
            try:
                sample = next(self._iterator)
            except StopIteration:
                self._check_end()
                self._begin(self.epoch + 1)
                continue
            mine = self._read % self._share.size == self._share.rank
            self._read += 1
            self._total += 1
            return mine, sample

    def _check_end(self) -> None:
        if self._read <= self._share.rank:
            raise ConfigError(
                f"{type(self._dataset).__name__} ended after {self._read} samples, which leaves none for a rank: its share "
                "is empty. Split the data into more shards, or start fewer ranks"
            )

    @contextmanager
    def _seen_as_worker(self) -> Iterator[None]:
        """Inside, the set sees the worker of its part, whichever process reads it: the same samples in all."""
        torch_worker._worker_info = self._info
        try:
            yield
        finally:
            torch_worker._worker_info = None

    def _seed_next(self) -> None:
        seed_all(integer(self._seed, self._total), current_device())
