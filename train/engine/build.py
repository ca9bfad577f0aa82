"""Build the parts of a run from Config and World: the only place that instantiates the config's targets."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from phalanx.compose.hydra_api import CONF
from phalanx.config.metric_direction import TEST, data_sets
from phalanx.config.schema import Auto, CommHook, Config, ParallelConfig, TrainConfig
from phalanx.exit.codes import ConfigError
from phalanx.system import cpu_count
from phalanx.targets.instantiate import Targets
from phalanx.targets.kinds import CALLABLE
from phalanx.targets.signature import check_signature
from phalanx.targets.trust import Trust

from ..checkpoint import weights
from ..checkpoint.extra_state import extra_state_of
from ..checkpoint.state import State
from ..distributed.world import World
from ..evaluation.evaluate import Evaluation
from ..evaluation.sets import EvaluationSets
from ..evaluation.times import EvaluationTimes
from ..freezing.freezing import Freezing
from ..freezing.phase_parameters import phase_parameters
from ..freezing.phased_updater import PhasedUpdater
from ..freezing.plan import FreezePlan, freeze
from ..loading.batch import Augment, apply
from ..loading.collation import UserCollation
from ..loading.loader import Loader, SampleBatch
from ..loading.prefetch import ToDevice
from ..loading.rng import seed_all
from ..loading.streams.stream_dataset import StreamFetcher
from ..memory.activation_checkpointing import checkpoint_activations
from ..optim import optimizer_state
from ..optim.ema import Average
from ..optim.make_optimizers import Made, make_optimizers
from ..optim.optimizer_average import OptimizerAverage
from ..optim.param_groups import groups_of
from ..optim.precision import LossScale, Precision, choose, set_up
from ..optim.sparse_gradients import mark_tables
from ..optim.updater import Updater
from ..parallel.loss_module import LossModule
from ..parallel.strategy import ParallelStrategy
from ..samplers.sampler import Sampler
from ..schedules.make_rates import RatesMaker, schedule_nodes
from ..schedules.schedule import Schedule
from ..sinks.sink import Sink
from ..start_point.init_from import StartPoint, load_initial, start_point
from ..start_point.match_names import Matched
from ..tasks.now import Now
from ..tasks.task import Task
from . import data_loading, model_checks
from .memory_format import Convolutions, takes_nhwc
from .phased_step import PhasedStep, check_phases
from .step import TrainStep
from .streams.look_at_streams import Streams, look_at_streams

KINDS: tuple[type, ...] = (
    *(nn.Module, Dataset, Task, torch.optim.Optimizer, Augment, Schedule, ParallelStrategy, Sink),
    *(torch.optim.lr_scheduler.LRScheduler, Sampler),
)
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


def targets(config: Config, foreign: bool) -> Targets:
    """The builder of the config's targets; of a `foreign` config, one that came with a run's folder, with trust limits."""
    return Targets(KINDS, Trust(config.run.trust) if foreign else None)


def check_targets(config: Config, builder: Targets) -> None:
    """Check classes and arguments of all targets without building any. Raises ConfigError."""
    for node, where, kind, given in _nodes(config):
        builder.check(node, where, kind, given)
    for name, node in config.sinks.items():  # apart from the others: their code changes no result
        builder.check(node, f"sinks.{name}", Sink)
    _check_options(config.parallel, builder)


def packages(config: Config, builder: Targets) -> list[str]:
    """The packages whose code the config's targets run."""
    return sorted(set().union(*(builder.packages(node, where, kind) for node, where, kind, _ in _nodes(config))))


def _nodes(config: Config) -> Iterable[tuple[Mapping[str, Any], str, type, tuple[str, ...]]]:
    yield config.model, "model", nn.Module, ()
    for name, node in data_sets(config.data).items():
        yield node, f"data.{name}", Dataset, ()
    if config.data.augment is not None:
        yield config.data.augment, "data.augment", Augment, ()
    if config.data.collate is not None:
        yield config.data.collate, "data.collate", CALLABLE, ()
    if config.data.sampler is not None:
        yield config.data.sampler, "data.sampler", Sampler, ()
    yield config.task, "task", Task, ()
    for group in groups_of(config.optim, config.schedule):
        yield group.node, group.node_where, torch.optim.Optimizer, ("params",)
        if group.options:
            yield {**group.node, **group.options}, group.where, torch.optim.Optimizer, ("params",)
        yield from schedule_nodes(group.schedule, group.schedule_where)
    where = "parallel.args" if config.parallel.args else "parallel"
    yield _strategy(config.parallel), where, ParallelStrategy, ("module", "world", "config")


def _check_options(config: ParallelConfig, builder: Targets) -> None:
    """Raise ConfigError for an option that is set and that the strategy does not read.

    It is set where it is not as in conf/parallel/ddp.yaml, whose keys the config of every strategy has.
    """
    found = builder.resolve(_strategy(config), "parallel", ParallelStrategy)
    if not (isinstance(found, type) and issubclass(found, ParallelStrategy)):
        return
    unread = [
        option.name for option in fields(ParallelConfig) if option.name not in ("_target_", "args", *found.options)
    ]
    if not unread:
        return
    unset = yaml.safe_load((CONF / "parallel" / "ddp.yaml").read_text(encoding="utf-8"))
    for name in unread:
        value = getattr(config, name)
        plain = value.name if isinstance(value, CommHook) else value
        if plain != unset[name]:
            shown = str(plain).lower()
            raise ConfigError(
                f"parallel.{name}={shown} is set, and {found.__name__} does not read it. Leave it out, or list it in the "
                "class's `options` where it does"
            )


def set_up_process(config: Config, world: World) -> Precision:
    """Set threads, precision (one that all GPUs support) and determinism of this rank. All ranks call it."""
    # All ranks take part, in this and what follows.
    capabilities = world.gather(world.raise_on_all(lambda: _capability(world.device)))
    oldest = min((found for found in capabilities if found is not None), default=None)
    return world.raise_on_all(lambda: _set_up(config, world, oldest))


def _capability(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of a rank's GPU, None for a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def _set_up(config: Config, world: World, oldest: tuple[int, int] | None) -> Precision:
    threads = config.train.threads
    if isinstance(threads, Auto):
        threads = cpu_count.threads(os.environ, world.rank_env.local_size)
    torch.set_num_threads(threads)
    precision = choose(config.train.precision, oldest)
    set_up(precision, config.train.deterministic)
    return precision


def build(config: Config, builder: Targets, world: World, precision: Precision) -> Parts:
    """The parts of this rank. All ranks call it: it contains collectives. Raises ConfigError, the same on all ranks."""
    # All ranks take part, in this and what follows.
    # A run that trains on, and that this one extends, is looked at once.
    start = world.broadcast_object(world.raise_on_all(lambda: start_point(config) if world.is_rank_zero else None))
    datasets = world.raise_on_all(lambda: _datasets(config, builder, world))
    streams = look_at_streams(config, datasets, world)
    alone = world.raise_on_all(lambda: _rank_parts(config, builder, world, precision, start, datasets, streams))
    notes = [*streams.notes, *_crowded(config.data.workers * world.rank_env.local_size)]
    notes += [_IN_EVAL_MODE.format(name) for name in _modules_in_eval_mode(alone.model)]
    if config.train.channels_last and not all(world.gather(alone.nhwc)):
        notes.append("the model takes no tensors in channels-last order, so train.channels_last is left off")
        alone.convolutions.as_made()
    if config.train.compile:
        alone.model.compile()
    module = LossModule(alone.model, alone.task, find_unused=config.parallel.find_unused)
    given = {"module": module, "world": world, "config": config.parallel}
    # Not inside raise_on_all: the constructor contains collectives, as the ranks compare their models.
    strategy = builder.build(_strategy(config.parallel), "parallel.args", ParallelStrategy, **given)  # type: ignore[type-abstract]
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


def _strategy(config: ParallelConfig) -> dict[str, Any]:
    """The other keys are passed as `config`."""
    return {**config.args, "_target_": config._target_}


@dataclass(frozen=True)
class _RankParts:
    """The parts that a rank builds without collectives."""

    datasets: Mapping[str, Dataset[Any]]
    collations: Mapping[str, UserCollation | None]
    task: Task
    start_point: StartPoint
    initial: Matched | None
    loader: Loader
    model: nn.Module
    mover: ToDevice
    sample_batch: SampleBatch
    convolutions: Convolutions
    nhwc: bool  # they are in NHWC memory order, or there are none
    frozen: FreezePlan
    phases: Mapping[str, list[str]]  # the parameters of each phase of the task
    streams: Streams


def _rank_parts(
    config: Config,
    builder: Targets,
    world: World,
    precision: Precision,
    start: StartPoint,
    datasets: Mapping[str, Dataset[Any]],
    streams: Streams,
) -> _RankParts:
    task = builder.build(config.task, "task", Task)  # type: ignore[type-abstract]
    check_signature(task.ratios, "model", "batch")
    check_signature(task.show, "model", "batch")
    check_signature(task.derive, "sums")
    for name, dataset in datasets.items():
        try:
            task.check(dataset)
        except ConfigError as error:
            raise ConfigError(f"data.{name}: {error}") from None
    collations = {name: data_loading.collation(config, builder, dataset) for name, dataset in datasets.items()}
    train, collate = datasets["train"], collations["train"]
    loader = data_loading.loader(config, builder, train, collate, start, world, streams.train)
    model = _model(config, builder, world, precision)
    extra_state_of(model.state_dict())  # raises now for what could not be saved
    weights.check(model)
    initial = load_initial(model, start, config.train)
    checkpoint_activations(model, config.train.checkpoint_activations, compiled=config.train.compile)
    frozen = freeze(model, config.train.freeze)
    phases = phase_parameters(model, task.phases) if task.phases else {}
    mover = ToDevice(world.device, precision.of)
    convolutions = Convolutions(model)
    asked = config.train.channels_last and bool(convolutions)
    sample_batch = loader.sample_batch(few=asked)
    few = apply(sample_batch.few, mover)
    nhwc = not asked or few is None or takes_nhwc(convolutions, model, task, few, precision, world)
    return _RankParts(
        datasets,
        collations,
        task,
        start,
        initial,
        loader,
        model,
        mover,
        sample_batch,
        convolutions,
        nhwc,
        frozen,
        phases,
        streams,
    )


def _train_whole(model: nn.Module) -> None:
    """Put a model that came in eval mode as a whole, as `from_pretrained` leaves it, into training mode.

    What has parameters of which none trains stays as it is, and so does every mode of a model that came with parts in
    training mode: those are its author's.
    """
    if any(module.training for module in model.modules()):
        return
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _modules_in_eval_mode(model: nn.Module) -> list[str]:
    """The outermost modules in eval mode that have trainable parameters."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found) or "the model" in found
        if not module.training and not inside and any(p.requires_grad for p in module.parameters()):
            found.append(name or "the model")
    return found


def _parts(
    config: Config,
    builder: Targets,
    world: World,
    precision: Precision,
    alone: _RankParts,
    strategy: ParallelStrategy,
    phases: Mapping[str, ParallelStrategy],
    notes: list[str],
) -> Parts:
    task, loader = alone.task, alone.loader
    task.now = Now(0, loader.timeline.steps)
    strategies: Mapping[str | None, ParallelStrategy] = dict(phases.items()) or {None: strategy}
    step, updater, made = _step(config, builder, world, precision, alone, strategies)
    return Parts(
        step=step,
        state=State(strategy, updater, world, alone.frozen.never, _stream(loader)),
        loader=loader,
        mover=alone.mover,
        evaluations=_evaluations(config, alone, strategy, precision, world),
        precision=precision,
        parameters=sum(p.numel() for p in alone.model.parameters()),
        datasets=alone.datasets,
        start_point=alone.start_point,
        initial=alone.initial,
        task=task,
        sample_batch=alone.sample_batch,
        notes=[*notes, *_notes(made)],
        groups=[fact for each in made for fact in each.facts]
        if config.optim.get("groups") or config.optim.get("layer_decay") is not None
        else [],
        freezing=Freezing(alone.frozen) if alone.frozen.changes else None,
    )


def _stream(loader: Loader) -> StreamFetcher | None:
    return loader.fetcher if isinstance(loader.fetcher, StreamFetcher) else None


def _step(
    config: Config,
    builder: Targets,
    world: World,
    precision: Precision,
    alone: _RankParts,
    strategies: Mapping[str | None, ParallelStrategy],
) -> tuple[TrainStep | PhasedStep, Updater | PhasedUpdater, list[Made]]:
    """The step by one strategy, or by one for each phase of the task."""
    timeline, by_phase = alone.loader.timeline, dict[str, TrainStep]()
    samples = alone.loader.epoch_samples
    rates = RatesMaker(builder, config.data, timeline.steps, lambda step: timeline.span(step).start // samples)
    every: list[Made] = []
    for i, (phase, strategy) in enumerate(strategies.items()):
        strategy.begin_phase()
        updater, made = _updater(config, builder, strategy, rates, precision, world.device, phased=bool(phase))
        every.append(made)
        by_phase[phase or ""] = TrainStep(
            strategy=strategy,
            updater=updater,
            precision=precision,
            world=world,
            seed=config.seed,
            counts_data=alone.task.counts_data,
            collates=alone.collations["train"] is not None,
            steps=timeline.steps,
            phase=phase,
            stream=() if phase is None else (i,),
        )
    if not alone.phases:
        return by_phase[""], by_phase[""].updater, every
    updater_of_all = PhasedUpdater({name: own.updater for name, own in by_phase.items()})
    return PhasedStep(by_phase, alone.phases), updater_of_all, every


def _crowded(workers: int) -> list[str]:
    """Torch warns of it, too, but once for each of its loaders, and counts one rank alone."""
    if workers <= cpu_count.available():
        return []
    return [
        f"{workers} data workers share {cpu_count.available()} CPUs here: lower data.workers if data_wait_s is high"
    ]


def _notes(made: Sequence[Made]) -> list[str]:
    """Of groups without parameters those that have none in any phase."""
    left = [note for note in made[0].left if all(note in each.left for each in made)]
    return list(dict.fromkeys([*left, *(note for each in made for note in each.notes)]))


def _datasets(config: Config, builder: Targets, world: World) -> dict[str, Dataset[Any]]:
    """The data sets, each built with the same seed: a split drawn in __init__ is the same on all ranks and in all sets."""
    datasets = {}
    for name, node in data_sets(config.data).items():
        seed_all(config.seed, world.device)
        datasets[name] = builder.build(node, f"data.{name}", Dataset)
    return datasets


def _model(config: Config, builder: Targets, world: World, precision: Precision) -> nn.Module:
    seed_all(config.seed, world.device)
    model = builder.build(config.model, "model", nn.Module)
    model_checks.check_model(model)
    _train_whole(model)
    model = precision.converted(model.to(world.device))
    mark_tables(model)
    return model


def _updater(
    config: Config,
    builder: Targets,
    strategy: ParallelStrategy,
    rates: RatesMaker,
    precision: Precision,
    device: torch.device,
    *,
    phased: bool,
) -> tuple[Updater, Made]:
    named = strategy.named_parameters()
    aliases: dict[int, list[str]] = {}
    for name, parameter in strategy.model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    made = make_optimizers(config.optim, config.schedule, builder, strategy.model, named, aliases, rates)
    updater = Updater(
        made.optimizers,
        strategy.gradients,
        clip_norm=config.train.clip_norm,
        scale=LossScale(device) if precision.scaled else None,
        average=_average(config.train, made, [p for _, p in named if p.requires_grad or not phased]),
        device=device,
        on_device=device.type == "cuda",
    )
    return updater, made


def _average(train: TrainConfig, made: Made, parameters: Sequence[nn.Parameter]) -> Average | None:
    decay = train.ema_decay
    own = [each.optimizer for each in made.optimizers if optimizer_state.has_modes(each.optimizer)]
    if not own:
        return None if decay is None else Average(parameters, decay)
    for key, value in {"train.ema_decay": decay, "train.average_last": train.average_last}.items():
        if value is not None:
            raise ConfigError(
                f"{key}={value:g} would average what the optimizer {type(own[0]).__name__} averages itself, which its "
                f"eval() puts in place. Type {key}=null"
            )
    return OptimizerAverage(own, parameters)


def _evaluations(
    config: Config, alone: _RankParts, strategy: ParallelStrategy, precision: Precision, world: World
) -> EvaluationSets:
    def evaluation(name: str, batches: int | None) -> Evaluation:
        dataset, key, batch = alone.datasets[name], f"data.{name}", config.eval.batch
        shared, collate, stay = alone.loader.fetcher.shared, alone.collations[name], name != TEST
        streamed = alone.streams.samples.get(name)
        samples = data_loading.length(dataset, key) if streamed is None else streamed
        return Evaluation(
            key=key,
            fetcher=data_loading.evaluation_fetcher(config, dataset, key, collate, world, shared, stay=stay),
            samples=samples if batches is None else min(samples, batches * batch),
            batch=batch,
            task=alone.task,
            precision=precision,
            mover=alone.mover,
            collective_forward=strategy.collective_forward,
            predictions=config.eval.predictions,
        )

    sets = {
        name.rpartition(".")[2]: evaluation(name, config.eval.batches)
        for name in alone.datasets
        if name not in ("train", TEST)
    }
    test = evaluation(TEST, None) if TEST in alone.datasets else None
    times = EvaluationTimes(config.eval, alone.loader.timeline, alone.loader.epoch_samples)
    return EvaluationSets(sets, test, times)
