"""Before a run is built: how an evaluation set that is a stream is cut, and how many samples it has."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from torch.utils.data import Dataset

from phalanx.config.schema import Config
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ...distributed.world import World
from ...evaluation.batches import rounds
from ...loading.shard import run_of
from ...loading.streams.parts import PARTS, Parts, has_shard, shards_of, without_node_split
from ...loading.streams.probe import Count, Counted, FirstOfParts, are_apart
from ...loading.workers.workers import run_in_worker

_LONG_S = 10.0  # of counting, until that is told

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationStream:
    """An evaluation set that is a stream: what is iterated, and how many samples are taken of each of its parts."""

    dataset: Dataset[Any]
    parts: Parts
    samples: tuple[int, ...]


def count_stream(config: Config, name: str, dataset: Dataset[Any], world: World) -> EvaluationStream:
    """Count the samples that an evaluation takes, each rank those of its own parts. All ranks call it.

    Raises ConfigError.
    """
    dataset = without_node_split(dataset)
    with user_error.context(act="while the samples of a stream were counted", set=f"data.{name}"), _long(name, world):
        limit = config.eval.batches if name != "test" else None
        parts = _parts(config, dataset, limit, world)  # all ranks take part
        samples = _samples(config, name, dataset, parts, limit, world)  # all ranks take part
    if not sum(samples):
        raise ConfigError(
            f"data.{name}: {type(dataset).__name__} is empty: it has no sample to evaluate on", agreed=True
        )
    return EvaluationStream(dataset, parts, samples)


def _parts(config: Config, dataset: Any, limit: int | None, world: World) -> Parts:
    """The same on any number of ranks, and no more than batches are taken. All ranks call it."""
    count = min(shards_of(dataset) or 1, PARTS, PARTS if limit is None else limit)
    if count == 1:
        return Parts()
    if has_shard(dataset):
        return Parts(count, (0, 1))
    parts = Parts(count)
    look = FirstOfParts(parts)
    firsts = world.raise_on_all(lambda: run_in_worker(look, dataset, min(1, config.data.workers)))
    of_ranks = world.gather(len(firsts) == count and are_apart(firsts))  # all ranks take part
    return parts if all(of_ranks) else Parts()


def _samples(
    config: Config, name: str, dataset: Dataset[Any], parts: Parts, limit: int | None, world: World
) -> tuple[int, ...]:
    """Of each part. With a limit of batches these are taken of all parts in turn. All ranks call it."""
    batch = config.eval.batch
    each = None if limit is None else ceil(limit / parts.count)
    while True:
        found = _counted(config, name, dataset, parts, None if each is None else each * batch, world)
        if limit is None or each is None:
            return found
        left = any(samples == each * batch for samples in found)
        if sum(ceil(samples / batch) for samples in found) >= limit or not left:
            return rounds(found, batch, limit)
        each *= 2  # parts that ended early have left batches to others


def _counted(
    config: Config, name: str, dataset: Dataset[Any], parts: Parts, most: int | None, world: World
) -> tuple[int, ...]:
    """The samples of each part, up to `most`. All ranks call it."""
    own = [0] if parts.count == 1 else list(range(*run_of(parts.count, world.rank, world.size)))
    count = Count(config.seed, parts, own, most)
    here: Counted = world.raise_on_all(lambda: run_in_worker(count, dataset, min(1, config.data.workers)))
    of_ranks = world.gather(here)  # all ranks take part
    alike = [found if parts.count == 1 else replace(found, samples={}) for found in of_ranks]
    if any(found != alike[0] for found in alike):
        raise ConfigError(
            f"data.{name}: {type(dataset).__name__} does not give all ranks the same samples, or not the same ones each "
            "time. In an evaluation the ranks take parts of one whole, so that none is counted twice. Leave out what "
            "splits it by rank, and shuffle by a fixed seed",
            agreed=True,
        )
    samples = {part: number for found in of_ranks for part, number in found.samples.items()}
    return tuple(samples[part] for part in range(parts.count))


@contextmanager
def _long(name: str, world: World) -> Iterator[None]:
    """Say what takes so long, as it would for ever where a stream has no end."""
    told = f"data.{name} is a stream, whose samples are counted to its end. Where it has none, type eval.batches=100"
    timer = threading.Timer(_LONG_S, logger.warning, [told])
    timer.daemon = True
    if world.is_rank_zero:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
