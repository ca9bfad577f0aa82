"""Build what reads the data: the loader of a rank, of the data sets, the collate and the augmentation of the config."""

from math import ceil
from typing import Any

from torch.utils.data import Dataset, Subset

from phalanx.config.schema import Config
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.targets.kinds import CALLABLE
from phalanx.targets.signature import check_signature

from ...distributed.world import World
from ...loading.batch import Augment
from ...loading.collation import UserCollation
from ...loading.fetch import PositionDataset, has_getitem
from ...loading.loader import Fetcher, Loader, Timeline
from ...loading.order import Order, Positions, SequentialOrder
from ...loading.streams.stream_dataset import StreamFetcher, StreamLoader, StreamShare, WholeStream, WholeStreamFetcher
from ...loading.workers.shared_dataset import SharedDataset
from ...samplers.sampler import Sampled, Sampler, set_up
from ...samplers.whole_batches import WholeBatches
from ...start_point.init_from import StartPoint
from ..streams.count_stream import EvaluationStream
from ..streams.look_at_streams import TrainStream


def collation(config: Config, builder: Targets, dataset: Dataset[Any]) -> UserCollation | None:
    """The user's collate: that of the config, else the method of the data set, or of the one that it is a subset of."""
    if config.data.collate is not None:
        made: Any = builder.build(config.data.collate, "data.collate", CALLABLE)
        return UserCollation(made, "data.collate")
    while isinstance(dataset, Subset) and not hasattr(dataset, "collate"):
        dataset = dataset.dataset
    own = getattr(dataset, "collate", None)
    return UserCollation(own, f"{type(dataset).__name__}.collate") if callable(own) else None


def loader(
    config: Config,
    builder: Targets,
    dataset: Dataset[Any],
    collate: UserCollation | None,
    start: StartPoint,
    world: World,
    stream: TrainStream | None,
) -> Loader:
    """The loader of the training set on this rank; of `stream` where it is one."""
    if stream is not None:
        return _stream_loader(config, builder, stream, collate, start, world)
    order, epoch = _order(config, builder, dataset)
    timeline = _timeline(config, epoch, start)
    source = PositionDataset(dataset, order, _augment(config, builder), config.seed, collate, timeline.whole)
    _check_shares(config, timeline)
    made = fetcher(config, source, world, SharedDataset(), stay=False)
    return Loader(made, timeline, config.train.micro_batch, world.rank, world.size, epoch)


def _stream_loader(
    config: Config,
    builder: Targets,
    stream: TrainStream,
    collate: UserCollation | None,
    start: StartPoint,
    world: World,
) -> StreamLoader:
    timeline = _timeline(config, stream.length or 1, start)  # without a length the run has train.steps
    augment, batch = _augment(config, builder), config.train.global_batch
    source = StreamShare(
        stream.dataset,
        augment,
        config.seed,
        collate,
        timeline,
        stream.share,
        stream.parts,
        keeps_state=stream.keeps_state,
    )
    _check_shares(config, timeline)
    pin = world.device.type == "cuda"
    made = StreamFetcher(source, config.data.workers, config.data.prefetch, pin, batch=batch)
    epoch, has_length = stream.length or timeline.end, stream.length is not None
    return StreamLoader(made, timeline, config.train.micro_batch, world.rank, world.size, epoch, has_length=has_length)


def _augment(config: Config, builder: Targets) -> Augment | None:
    if config.data.augment is None:
        return None
    made: Augment = builder.build(config.data.augment, "data.augment", Augment)  # type: ignore[type-abstract]
    return made


def _check_shares(config: Config, timeline: Timeline) -> None:
    last = timeline.span(timeline.steps - 1)
    if config.parallel.sync_batchnorm and (last.stop - last.start) % config.train.global_batch:
        raise ConfigError(
            f"parallel.sync_batchnorm needs equal shares, and the last batch has {last.stop - last.start} samples. "
            f"Type train.steps={timeline.steps - 1}"
        )


def _order(config: Config, builder: Targets, dataset: Dataset[Any]) -> tuple[Positions, int]:
    """Which sample stands at which position, and the positions of an epoch."""
    samples, batch = length(dataset, "data.train"), config.train.global_batch
    order: Positions = Order(samples, config.seed)
    epoch = samples
    if config.data.sampler is not None:
        sampled = Sampled(dataset, samples, config.seed, config.train.micro_batch or batch, config.data.drop_last)
        order, epoch = set_up(builder.build(config.data.sampler, "data.sampler", Sampler), sampled)  # type: ignore[type-abstract]
    if config.data.drop_last:
        order = WholeBatches(order, epoch, batch)
        epoch = order.epoch
    return order, epoch


def length(dataset: Dataset[Any], where: str) -> int:
    if not hasattr(dataset, "__len__") or not (has_getitem(dataset) or hasattr(dataset, "__getitems__")):
        raise ConfigError(
            f"{where} has no length or no __getitem__. Only data sets that can be indexed have an exact order"
        )
    for name, argument in (("__getitem__", "index"), ("__getitems__", "indices")):
        if name in dir(dataset):
            check_signature(getattr(dataset, name), argument)
    try:
        length = len(dataset)
    except TypeError as error:  # Python's own, for what it answers with
        place = user_error.place_of(type(dataset).__len__)
        raise ConfigError(
            f"{where}: __len__ of {type(dataset).__name__} gives no number of samples: {error}"
            f"{'' if place is None else f', at {place}'}"
        ) from error
    if length < 1:
        raise ConfigError(f"{where} is empty: it has no sample to train or evaluate on")
    return length


def _timeline(config: Config, samples: int, start: StartPoint) -> Timeline:
    train = config.train
    if train.steps is not None:
        end = start.position + (train.steps - start.step) * train.global_batch
        steps = train.steps
    else:
        assert train.epochs is not None
        end = max(1, round(train.epochs * samples))
        if config.data.drop_last:
            end = max(1, end // train.global_batch) * train.global_batch
        steps = start.step + ceil((end - start.position) / train.global_batch)
    if steps <= start.step:
        raise ConfigError(
            f"train.extend_from={train.extend_from} is a run of {start.step} steps and {start.position} samples already, "
            f"and the config ends there or before. Type train.steps={start.step * 2}"
        )
    return Timeline(start.step, start.position, steps, end, train.global_batch)


def evaluation_fetcher(
    config: Config,
    dataset: Dataset[Any] | EvaluationStream,
    key: str,
    collate: UserCollation | None,
    world: World,
    shared: SharedDataset,
    *,
    stay: bool,
) -> Fetcher:
    """What an evaluation on `dataset`, which the config has at `key`, fetches its batches by."""
    if isinstance(dataset, EvaluationStream):
        whole = WholeStream(dataset.dataset, key, config.seed, collate, dataset.parts, dataset.samples)
        workers, pin = min(dataset.parts.count, config.data.workers), world.device.type == "cuda"
        return WholeStreamFetcher(whole, workers, config.data.prefetch, pin, stay, shared)
    source = PositionDataset(dataset, SequentialOrder(), None, config.seed, collate)
    return fetcher(config, source, world, shared, stay=stay)


def fetcher(config: Config, source: PositionDataset, world: World, shared: SharedDataset, *, stay: bool) -> Fetcher:
    pin = world.device.type == "cuda"
    return Fetcher(source, config.data.workers, config.data.prefetch, pin, stay, shared)
