"""A stream in parts that are read apart: a fixed number of them, whatever number of processes reads them."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data._utils.worker import WorkerInfo

from phalanx.exit.codes import ConfigError

from .reader import Share, StreamPosition, StreamReader, is_stream

ROWS = 12  # parts of a rank's share, at most
PARTS = 64  # of an evaluation set, at most
_EVEN = 4  # shards a part, from which on one more does no harm


@dataclass(frozen=True)
class Parts:
    """`count` parts of a stream, or all of it.

    Part i is `shard(num_shards=ranks * count, index=rank + ranks * i)` with `shard` = (rank, ranks), and else what the set
    gives the i-th of `count` data workers by torch.utils.data.get_worker_info().
    """

    count: int = 1
    shard: tuple[int, int] | None = None

    def reader(
        self,
        dataset: Any,
        part: int,
        share: Share,
        seed: int,
        position: StreamPosition,
        *,
        keeps_state: bool = False,
        copied: Callable[[Any], Any] = lambda dataset: dataset,
    ) -> StreamReader:
        """Reads one part from `position` on; of a copy where `copied` makes one."""
        if self.count == 1:
            return StreamReader(copied(dataset), share, seed, position, keeps_state=keeps_state)
        info = None
        if self.shard is not None:
            rank, ranks = self.shard
            dataset = shard_of(dataset, ranks * self.count, rank + ranks * part)
        else:
            info = WorkerInfo(id=part, num_workers=self.count, seed=seed, dataset=dataset)
        found = copied(dataset)
        return StreamReader(found, share, seed, position, keeps_state=keeps_state, part=part, info=info)


WHOLE = Parts()


def has_shard(dataset: Any) -> bool:
    return callable(getattr(dataset, "shard", None))


def shard_of(dataset: Any, shards: int, index: int) -> Any:
    """What the set's own method gives. Raises ConfigError."""
    made = dataset.shard(num_shards=shards, index=index)
    if not is_stream(made):
        raise ConfigError(
            f"{type(dataset).__name__}.shard(num_shards={shards}, index={index}) returned "
            f"{type(made).__name__}, which is no stream. Return a set that iterates over that part"
        )
    return made


def shards_of(dataset: Any) -> int | None:
    """How many shards a set says that it has: by `num_shards`, as Hugging Face's, or the files of a webdataset."""
    webdataset = sys.modules.get("webdataset")
    if webdataset is not None and isinstance(dataset, webdataset.DataPipeline):
        stages = dataset.pipeline
        if dataset.nsamples > 0 or any(getattr(stage, "f", None) is islice for stage in stages):
            return None  # so many samples of each part would not be as many of all
        found = getattr(stages[0], "urls", None) if stages else None
        return len(found) if isinstance(found, list | tuple) else None
    if _cuts_numbers(getattr(dataset, "_ex_iterable", None)):
        return None
    number = getattr(dataset, "num_shards", None)
    return number if type(number) is int and number > 0 else None


def _cuts_numbers(examples: Any) -> bool:
    """Whether Hugging Face's take(n) or skip(n) is in it, which a shard of the set would do with n/shards instead."""
    if examples is None:
        return False
    if getattr(examples, "split_when_sharding", False):
        return True
    return any(map(_cuts_numbers, [getattr(examples, "ex_iterable", None), *getattr(examples, "ex_iterables", [])]))


def rows(shards: int | None, ranks: int) -> int:
    """Into how many parts the share of one of `ranks` ranks is cut: as many shards each, or nearly."""
    if shards is None:
        return 1
    counts = range(1, ROWS + 1)
    even = max((count for count in counts if shards % (ranks * count) == 0), default=1)
    near = max((count for count in counts if shards // (ranks * count) >= _EVEN), default=1)
    return even if 2 * even >= near else near


def without_node_split(dataset: Any) -> Any:
    """A webdataset that does not look at ranks, as its parts are dealt out to them; any other as it is."""
    webdataset = sys.modules.get("webdataset")
    if webdataset is None or not isinstance(dataset, webdataset.DataPipeline):
        return dataset
    splitters = webdataset.split_by_node, webdataset.single_node_only
    stages = [stage for stage in dataset.pipeline if stage not in splitters]
    if len(stages) == len(dataset.pipeline):
        return dataset
    found = copy.copy(dataset)
    found.pipeline = stages
    return found
