"""Before a run is built: find out how its streams are shared, and refuse what cannot be had with them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils.data import Dataset

from phalanx.config.schema import Config
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ...checkpoint.extra_state import to_plain
from ...distributed.world import World
from ...loading.streams.parts import Parts, has_shard, rows, shard_of, shards_of
from ...loading.streams.probe import FirstOfParts, Probe, are_apart, probe
from ...loading.streams.reader import Share, is_stream
from ...loading.workers.workers import run_in_worker
from ...optim.param_groups import groups_of
from .count_stream import EvaluationStream, count_stream

_TRAIN = "data.train"


@dataclass(frozen=True)
class TrainStream:
    """The training set of a run, a stream: what this rank iterates, what it keeps of that, and how a position is saved."""

    dataset: Dataset[Any]
    share: Share
    parts: Parts
    keeps_state: bool
    length: int | None  # over all ranks, where the set says it


@dataclass(frozen=True)
class Streams:
    """The streams among the data sets of a run; `evaluations` by name."""

    train: TrainStream | None = None
    evaluations: Mapping[str, EvaluationStream] = field(default_factory=dict)
    notes: Sequence[str] = ()  # warnings


def look_at_streams(config: Config, datasets: Mapping[str, Dataset[Any]], world: World) -> Streams:
    """Read the first samples of the streams, and count those of evaluations. All ranks call it. Raises ConfigError.

    Where nothing is trained there is no set `train`.
    """
    found = Streams()
    if "train" in datasets and is_stream(datasets["train"]):
        world.raise_on_all(lambda: _check_keys(config, datasets["train"]))  # all ranks take part
        train, notes = _train(config, datasets["train"], world)  # all ranks take part
        found = Streams(train, {}, notes)
    counted = {
        name: count_stream(config, name, dataset, world)  # all ranks take part, in one set after the other
        for name, dataset in datasets.items()
        if name != "train" and is_stream(dataset)
    }
    return replace(found, evaluations=counted)


def _check_keys(config: Config, dataset: Dataset[Any]) -> None:
    data, kind = config.data, f"{_TRAIN} is a stream ({type(dataset).__name__})"
    if data.sampler is not None:
        raise ConfigError(
            f"{kind}, whose samples come in its own order, and data.sampler={data.sampler.get('_target_')} chooses "
            "samples by index. Type data.sampler=null, and choose in the stream"
        )
    if data.drop_last:
        raise ConfigError(
            f"{kind}, of which each rank begins its own share again when that ends, so no batch begins an epoch for all. "
            "Type data.drop_last=false"
        )
    if _length(dataset) is not None:
        return
    if config.train.steps is None:
        raise ConfigError(
            f"{kind} without a length, so train.epochs={config.train.epochs:g} says no end. Type train.steps=1000 "
            "train.epochs=null, or give the stream __len__"
        )
    if config.eval.every_epochs is not None:
        raise ConfigError(
            f"{kind} without a length, and eval.every_epochs={config.eval.every_epochs:g} counts passes over it. Type "
            "eval.every_epochs=null eval.every=100"
        )
    for group in groups_of(config.optim, config.schedule):
        if group.schedule.get("interval") == "epoch":
            where = group.schedule_where
            raise ConfigError(
                f"{kind} without a length, and {where}.interval=epoch counts passes over it. Type {where}.interval=step"
            )


def _length(dataset: Any) -> int | None:
    if not hasattr(type(dataset), "__len__"):
        return None
    try:
        found = len(dataset)
    except TypeError:  # as torch's own for a stream whose parts have none
        return None
    return found if found > 0 else None


def _train(config: Config, dataset: Dataset[Any], world: World) -> tuple[TrainStream, list[str]]:
    told = None if world.size == 1 else world.raise_on_all(lambda: _told(dataset, world))
    mine = dataset if told is None else told
    with user_error.context(act="while the first samples of a stream were read", set=_TRAIN):
        here = world.raise_on_all(lambda: run_in_worker(probe, mine, config.data.workers))
    # All ranks take part.
    of_ranks = world.gather(replace(here, state=None))
    notes, name = [], type(dataset).__name__
    if empty := [rank for rank, found in enumerate(of_ranks) if not found.first]:
        raise ConfigError(
            f"{_TRAIN}: {name} gives no sample on rank {empty[0]} of {world.size}. Split the data into at least "
            f"{world.size} shards, or start fewer ranks",
            agreed=True,
        )
    splits = world.size == 1 or told is not None or _splits_itself(name, of_ranks)
    share = Share(part=world.rank) if splits else Share(world.rank, world.size)
    if not splits:
        notes.append(
            f"{_TRAIN}: {name} gives all ranks the same samples, so each reads them all and keeps every "
            f"{_ordinal(world.size)} one. Split it to save that: give it a method shard(num_shards, index), or let it take "
            "its part by torch.distributed.get_rank() when it is made"
        )
    elif world.size > 1 and told is None and not all(found.repeats for found in of_ranks):
        notes.append(
            f"{_TRAIN}: {name} gives other samples each time that it is read, so it does not show whether it splits them "
            "over ranks: it is taken to do so. Shuffle by a fixed seed"
        )
    if any(found.loses for found in of_ranks):
        notes.append(
            f"{_TRAIN}: what follows a load_state_dict() of {name} is not what followed its state_dict(), as where a "
            "shuffle buffer is not part of the state. So its state is not used: a restart reads again what was read before"
        )
    world.raise_on_all(lambda: _check_plain(name, here))
    # All ranks alike: the verdict of one that lost something is that of all.
    keeps_state = here.state is not None and not any(found.loses for found in of_ranks)
    parts = _parts(config, dataset, world, world.size if splits else 1)  # all ranks take part
    if parts.shard is not None:
        mine = dataset
    if config.data.workers > parts.count:
        notes.append(_idle(config.data.workers, parts.count, dataset))
    return TrainStream(mine, share, parts, keeps_state, _length(dataset)), notes


def _parts(config: Config, dataset: Any, world: World, ranks: int) -> Parts:
    """How the share of each of `ranks` ranks is cut, whatever number of workers reads it. All ranks call it."""
    count = rows(shards_of(dataset), ranks)
    if count == 1:
        return Parts()
    if has_shard(dataset):
        return Parts(count, (world.rank, world.size))
    parts = Parts(count)
    with user_error.context(act="while the first samples of a stream were read", set=_TRAIN):
        firsts = world.raise_on_all(lambda: run_in_worker(FirstOfParts(parts), dataset, config.data.workers))
    of_ranks = world.gather(len(firsts) == count and are_apart(firsts))  # all ranks take part
    return parts if all(of_ranks) else Parts()


def _idle(workers: int, count: int, dataset: Any) -> str:
    """Why not all workers read."""
    name, shards = type(dataset).__name__, shards_of(dataset)
    used = f"{_TRAIN}: of data.workers={workers} {count} a rank read{'s' if count == 1 else ''} {name}, "
    if shards is None:
        return (
            f"{used}which does not say that it has shards. To have more of them read, give it an attribute num_shards, and "
            "a method shard(num_shards, index), or let it take its part by torch.utils.data.get_worker_info()"
        )
    if count == 1 and not has_shard(dataset):
        return (
            f"{used}whose {shards} shards cannot be cut evenly enough, or which gives all data workers the same samples. "
            "Let it take its part by torch.utils.data.get_worker_info(), and give it more shards"
        )
    return (
        f"{used}whose {shards} shards are read in {count} part{'s'[: count > 1]} a rank. More shards are read by more"
    )


def _told(dataset: Any, world: World) -> Any:
    """What this rank reads of a set that can be told which part to give; None where it cannot."""
    hugging_face = sys.modules.get("datasets")
    if hugging_face is not None and isinstance(dataset, hugging_face.IterableDataset):
        from datasets.distributed import split_dataset_by_node

        return split_dataset_by_node(dataset, world.rank, world.size)
    return shard_of(dataset, world.size, world.rank) if has_shard(dataset) else None


def _splits_itself(name: str, of_ranks: Sequence[Probe]) -> bool:
    """Whether each rank reads samples of its own; otherwise all read the same ones."""
    distinct = {tuple(found.first) for found in of_ranks}
    if len(distinct) == 1:
        return False
    if len(distinct) < len(of_ranks):
        raise ConfigError(
            f"{_TRAIN}: of {len(of_ranks)} ranks some read the same samples and some others: {name} does not split its "
            "samples over all ranks. Split it by rank and number of ranks, or not at all",
            agreed=True,
        )
    return True


def _check_plain(name: str, found: Probe) -> None:
    try:
        to_plain(found.state, name)
    except ConfigError as error:
        held = str(error).partition(" holds ")[2].partition(", which")[0]
        raise ConfigError(
            f"{_TRAIN}: {name}.state_dict() holds {held}, which only pickle could save. Return numbers, strings, tensors, "
            "arrays, and lists and dicts of them"
        ) from None


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")
