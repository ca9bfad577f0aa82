"""Build the parts of a run from Config and World."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets

from ...checkpoint.state import State
from ...distributed.world import World
from ...evaluation.sets import EvaluationSets
from ...freezing.freezing import Freezing
from ...loading.loader import TRIED, Loader, SampleBatch
from ...loading.prefetch import ToDevice
from ...loading.streams.stream_dataset import StreamFetcher
from ...optim.precision import Precision
from ...parallel.loss_module import LossModule
from ...parallel.strategy import ParallelStrategy
from ...start_point.init_from import StartPoint, start_point
from ...start_point.match_names import Matched
from ...tasks.now import Now
from ...tasks.task import Task
from .. import model_checks
from ..phased_step import PhasedStep, check_phases
from ..step import TrainStep
from ..streams.look_at_streams import look_at_streams
from .config_targets import strategy_node
from .evaluations import evaluation_sets
from .rank_parts import RankParts, build_datasets, crowded, modules_in_eval_mode, rank_parts
from .steps import make_step, notes_of

_IN_EVAL_MODE = (
    "{} is in eval mode, and its parameters train: without dropout, and with the statistics that a BatchNorm has. So does "
    "from_pretrained leave a model; call .train() on it in your constructor for what a plain training loop does"
)


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of."""

    step: TrainStep | PhasedStep
    state: State
    loader: Loader
    mover: ToDevice
    evaluations: EvaluationSets
    precision: Precision
    parameters: int
    datasets: Mapping[str, Dataset[Any]]
    start_point: StartPoint
    initial: Matched | None  # of the weights that it starts from
    task: Task
    sample_batch: SampleBatch
    notes: list[str]  # warnings for the user
    freezing: Freezing | None  # where what trains changes within the run
    groups: list[dict[str, Any]]  # of the optimizers, for the log; empty where the config asks for none


def build(config: Config, builder: Targets, world: World, precision: Precision) -> Parts:
    """The parts of this rank. All ranks call it: it contains collectives. Raises ConfigError, the same on all ranks."""
    # All ranks take part, in this and what follows.
    # A run that trains on, and that this one extends, is looked at once.
    start = world.broadcast_object(world.raise_on_all(lambda: start_point(config) if world.is_rank_zero else None))
    datasets = world.raise_on_all(lambda: build_datasets(config, builder, world.device))
    streams = look_at_streams(config, datasets, world)
    alone = world.raise_on_all(lambda: rank_parts(config, builder, world, precision, start, datasets, streams))
    notes = [*streams.notes, *crowded(config.data.workers * world.rank_env.local_size)]
    if alone.sample_batch.batch is None:
        notes.append(
            f"data.collate left nothing of the first {TRIED} batches of data.train: such a step changes no weight"
        )
    notes += [_IN_EVAL_MODE.format(name) for name in modules_in_eval_mode(alone.model)]
    if config.train.channels_last and not all(world.gather(alone.nhwc)):
        notes.append("the model takes no tensors in channels-last order, so train.channels_last is left off")
        alone.convolutions.as_made()
    if config.train.compile:
        alone.model.compile()
    module = LossModule(alone.model, alone.task, find_unused=config.parallel.find_unused)
    given = {"module": module, "world": world, "config": config.parallel}
    # Not inside raise_on_all: the constructor contains collectives, as the ranks compare their models.
    strategy = builder.build(strategy_node(config.parallel), "parallel.args", ParallelStrategy, **given)  # type: ignore[type-abstract]
    if alone.frozen.changes and type(strategy).retrain is ParallelStrategy.retrain:
        raise ConfigError(
            f"train.freeze begins or ends within the run, and {type(strategy).__name__} cannot change what trains. Type "
            "parallel=ddp, or freeze for ever: from: 0, until: null",
            agreed=True,
        )
    model_checks.check_sparse(strategy.model, type(strategy))
    if alone.phases:
        check_phases(alone.task, type(strategy), config.parallel)
    # All ranks take part, in one phase after the other.
    phases = {phase: strategy.phase(names) for phase, names in alone.phases.items()}
    return world.raise_on_all(lambda: _parts(config, builder, world, precision, alone, strategy, phases, notes))


def _parts(
    config: Config,
    builder: Targets,
    world: World,
    precision: Precision,
    alone: RankParts,
    strategy: ParallelStrategy,
    phases: Mapping[str, ParallelStrategy],
    notes: list[str],
) -> Parts:
    task, loader = alone.task, alone.loader
    task.now = Now(0, loader.timeline.steps)
    strategies: Mapping[str | None, ParallelStrategy] = dict(phases.items()) or {None: strategy}
    step, updater, made = make_step(config, builder, world, precision, alone, strategies)
    return Parts(
        step=step,
        state=State(strategy, updater, world, alone.frozen.never, _stream(loader)),
        loader=loader,
        mover=alone.mover,
        evaluations=evaluation_sets(config, alone, strategy, precision, world),
        precision=precision,
        parameters=sum(p.numel() for p in alone.model.parameters()),
        datasets=alone.datasets,
        start_point=alone.start_point,
        initial=alone.initial,
        task=task,
        sample_batch=alone.sample_batch,
        notes=[*notes, *notes_of(made)],
        groups=[fact for each in made for fact in each.facts]
        if config.optim.get("groups") or config.optim.get("layer_decay") is not None
        else [],
        freezing=Freezing(alone.frozen) if alone.frozen.changes else None,
    )


def _stream(loader: Loader) -> StreamFetcher | None:
    return loader.fetcher if isinstance(loader.fetcher, StreamFetcher) else None
