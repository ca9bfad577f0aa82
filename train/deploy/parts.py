"""The parts of a run that is not trained now: its model with a checkpoint's weights, its task, its evaluation sets."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from phalanx.compose.compose import Composed
from phalanx.config.schema import Config, PrecisionName
from phalanx.deployment.job import Job
from phalanx.run_folder.checkpoints import Checkpoint
from phalanx.targets.instantiate import Targets

from ..checkpoint.preserve import unchanged
from ..checkpoint.weights import check as check_weights
from ..distributed.world import World
from ..engine.parts.config_targets import strategy_node, targets
from ..engine.parts.data_loading import collation
from ..engine.parts.evaluations import EvaluatedWith, evaluations
from ..engine.parts.memory_format import Convolutions, takes_nhwc
from ..engine.parts.process_setup import set_up_process
from ..engine.parts.rank_parts import build_datasets, build_model, build_task
from ..engine.streams.look_at_streams import look_at_streams
from ..evaluation.evaluate import Evaluation, few_samples
from ..freezing.plan import freeze
from ..loading.batch import apply
from ..loading.prefetch import ToDevice
from ..loading.workers.shared_dataset import SharedDataset
from ..optim.precision import Precision
from ..parallel.loss_module import LossModule
from ..parallel.strategy import ParallelStrategy
from ..tasks.now import Now
from ..tasks.task import Task
from .checkpoint import load_checkpoint, steps_of


@dataclass(frozen=True)
class TrainedParts:
    """`evaluations` by split. The model has the weights of `checkpoint`, whole on each rank unless a strategy shards it."""

    config: Config
    builder: Targets
    model: nn.Module
    task: Task
    checkpoint: Checkpoint
    evaluations: Mapping[str, Evaluation]
    datasets: Mapping[str, Dataset[Any]]
    mover: ToDevice


def trained_parts(job: Job, composed: Composed, world: World, *, spread: bool = True) -> TrainedParts:
    """Build what evaluates the run of `job`, and try it. All ranks call it. Raises ConfigError.

    `spread`: the model is spread over the ranks as in training, where the strategy's forward needs that.
    """
    config = replace(composed.config, eval=replace(composed.config.eval, predictions=0))
    config = replace(config, log=replace(config.log, shown=0))
    builder = targets(config, composed.foreign)
    world.watchdog.at("build", 0)
    precision = set_up_process(config, world)  # all ranks take part, in this and what follows
    datasets = world.raise_on_all(lambda: build_datasets(config, builder, world.device, trains=False))
    streams = look_at_streams(config, datasets, world)
    collations = {
        name: world.raise_on_all(lambda data=data: collation(config, builder, data))  # type: ignore[misc]
        for name, data in datasets.items()
    }
    task = world.raise_on_all(lambda: build_task(config, builder, datasets))
    model = world.raise_on_all(lambda: _model(config, builder, world, precision))
    mover = ToDevice(world.device, precision.of)
    strategy = _strategy(config, builder, model, task, world) if spread else None
    collective = strategy is not None and strategy.collective_forward
    made = EvaluatedWith(datasets, collations, streams, SharedDataset(), task, mover, precision, collective)
    found = world.raise_on_all(lambda: evaluations(config, made, world))
    if strategy is None:
        _choose_memory_format(config, model, found, made, world)
    if config.train.compile:
        model.compile()
    checkpoint = load_checkpoint(model, Path(job.run), job.which, strategy, world)
    task.now = Now(checkpoint.step, steps_of(Path(job.run), checkpoint.step))
    gc.freeze()
    gc.enable()
    model = model if strategy is None else strategy.model
    with unchanged(model, task):
        for evaluation in found.values():
            evaluation.sanity_check(model, world)  # all ranks take part
    return TrainedParts(config, builder, model, task, checkpoint, found, datasets, mover)


def in_full_precision(composed: Composed) -> Composed:
    """The model in 32 bits and as it is written: other formats know neither autocast nor the order of memory."""
    train = replace(composed.config.train, precision=PrecisionName.fp32, compile=False, channels_last=False)
    return replace(composed, config=replace(composed.config, train=train))


def _model(config: Config, builder: Targets, world: World, precision: Precision) -> nn.Module:
    model = build_model(config, builder, world, precision)
    check_weights(model)
    freeze(model, config.train.freeze)
    return model


def _strategy(config: Config, builder: Targets, model: nn.Module, task: Task, world: World) -> ParallelStrategy | None:
    """The strategy where its forward takes all ranks; replicas need none to be evaluated. All ranks call it."""
    node = strategy_node(config.parallel)
    found = world.raise_on_all(lambda: builder.resolve(node, "parallel", ParallelStrategy))
    if isinstance(found, type) and not getattr(found, "collective_forward", True):
        return None
    module = LossModule(model, task, find_unused=config.parallel.find_unused)
    given: dict[str, Any] = {"module": module, "world": world, "config": config.parallel}
    return builder.build(node, "parallel.args", ParallelStrategy, **given)  # type: ignore[type-abstract]


def _choose_memory_format(
    config: Config, model: nn.Module, found: Mapping[str, Evaluation], made: EvaluatedWith, world: World
) -> None:
    """Convolutions in the order of the run, which decides the last bits. All ranks call it."""
    convolutions = Convolutions(model)
    if not (config.train.channels_last and convolutions):
        return

    def takes() -> bool:
        batch = apply(few_samples(next(iter(found.values())), world), made.mover)
        return batch is None or takes_nhwc(convolutions, model, made.task, batch, made.precision, world)

    if not all(world.gather(world.raise_on_all(takes))):  # all ranks take part
        convolutions.as_made()
