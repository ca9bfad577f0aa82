"""Build what reads the data: the loader of a rank, of the data sets, the collate and the augmentation of the config."""

from math import ceil
from typing import Any

from torch.utils.data import Dataset, IterableDataset, Subset

from phalanx.config.schema import Config
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets
from phalanx.targets.kinds import CALLABLE
from phalanx.targets.signature import check_signature

from ..distributed.world import World
from ..loading.batch import Augment
from ..loading.collation import UserCollation
from ..loading.fetch import PositionDataset
from ..loading.loader import Fetcher, Loader, Timeline
from ..loading.order import Order, Positions
from ..loading.workers.tensor_packing import SharedDataset
from ..samplers.sampler import Sampled, Sampler, set_up
from ..samplers.whole_batches import WholeBatches
from ..start_point.init_from import StartPoint


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
) -> Loader:
    """The loader of the training set on this rank."""
    order, epoch = _order(config, builder, dataset)
    timeline = _timeline(config, epoch, start)
    augment = None if config.data.augment is None else builder.build(config.data.augment, "data.augment", Augment)  # type: ignore[type-abstract]
    source = PositionDataset(dataset, order, augment, config.seed, collate, timeline.whole)
    last = timeline.span(timeline.steps - 1)
    if config.parallel.sync_batchnorm and (last.stop - last.start) % config.train.global_batch:
        raise ConfigError(
            f"parallel.sync_batchnorm needs equal shares, and the last batch has {last.stop - last.start} samples. "
            f"Type train.steps={timeline.steps - 1}"
        )
    made = fetcher(config, source, world, SharedDataset(), stay=False)
    return Loader(made, timeline, config.train.micro_batch, world.rank, world.size, epoch)


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
    if isinstance(dataset, IterableDataset):
        raise ConfigError(
            f"{where} is a stream, an IterableDataset, whose samples come in their own order. Only data sets that can be "
            "indexed have an exact order over ranks and restarts: give it __len__ and __getitem__(index) instead of "
            "__iter__, or keep its samples in a list"
        )
    if not hasattr(dataset, "__len__") or not _indexed(dataset):
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


def _indexed(dataset: Dataset[Any]) -> bool:
    """Whether it is more than torch's base class, which has a __getitem__ that only raises."""
    return getattr(type(dataset), "__getitem__", Dataset.__getitem__) is not Dataset.__getitem__ or hasattr(
        dataset, "__getitems__"
    )


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


def fetcher(config: Config, source: PositionDataset, world: World, shared: SharedDataset, *, stay: bool) -> Fetcher:
    pin = world.device.type == "cuda"
    return Fetcher(source, config.data.workers, config.data.prefetch, pin, stay, shared)
