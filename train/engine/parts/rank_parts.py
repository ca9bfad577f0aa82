"""The parts that a rank builds without collectives: data, task, model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from phalanx.config.metric_direction import data_sets
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError
from phalanx.system import cpu_count
from phalanx.targets.instantiate import Targets
from phalanx.targets.signature import check_signature

from ...checkpoint import weights
from ...checkpoint.extra_state import extra_state_of
from ...distributed.world import World
from ...freezing.phase_parameters import phase_parameters
from ...freezing.plan import FreezePlan, freeze
from ...loading.batch import apply
from ...loading.collation import UserCollation
from ...loading.loader import Loader, SampleBatch
from ...loading.prefetch import ToDevice
from ...loading.rng import seed_all
from ...memory.activation_checkpointing import checkpoint_activations
from ...optim.precision import Precision
from ...optim.sparse_gradients import mark_tables
from ...start_point.init_from import StartPoint, load_initial
from ...start_point.match_names import Matched
from ...tasks.task import Task
from .. import model_checks
from ..streams.look_at_streams import Streams
from . import data_loading
from .memory_format import Convolutions, takes_nhwc


@dataclass(frozen=True)
class RankParts:
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


def rank_parts(
    config: Config,
    builder: Targets,
    world: World,
    precision: Precision,
    start: StartPoint,
    datasets: Mapping[str, Dataset[Any]],
    streams: Streams,
) -> RankParts:
    task = build_task(config, builder, datasets)
    collations = {name: data_loading.collation(config, builder, dataset) for name, dataset in datasets.items()}
    train, collate = datasets["train"], collations["train"]
    loader = data_loading.loader(config, builder, train, collate, start, world, streams.train)
    model = build_model(config, builder, world, precision)
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
    return RankParts(
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


def build_datasets(
    config: Config, builder: Targets, device: torch.device, *, trains: bool = True
) -> dict[str, Dataset[Any]]:
    """The data sets, each built with the same seed: a split drawn in __init__ is the same on all ranks and in all sets.

    Without the one that is trained on, unless it `trains`.
    """
    datasets = {}
    for name, node in data_sets(config.data).items():
        if name == "train" and not trains:
            continue
        seed_all(config.seed, device)
        datasets[name] = builder.build(node, f"data.{name}", Dataset)
    return datasets


def build_task(config: Config, builder: Targets, datasets: Mapping[str, Dataset[Any]]) -> Task:
    """The task, which has looked at each of the data sets. Raises ConfigError."""
    task = builder.build(config.task, "task", Task)  # type: ignore[type-abstract]
    check_signature(task.ratios, "model", "batch")
    check_signature(task.show, "model", "batch")
    check_signature(task.derive, "sums")
    for name, dataset in datasets.items():
        try:
            task.check(dataset)
        except ConfigError as error:
            raise ConfigError(f"data.{name}: {error}") from None
    return task


def build_model(config: Config, builder: Targets, world: World, precision: Precision) -> nn.Module:
    seed_all(config.seed, world.device)
    model = builder.build(config.model, "model", nn.Module)
    model_checks.check_model(model)
    _train_whole(model)
    model = precision.converted(model.to(world.device))
    mark_tables(model)
    return model


def crowded(workers: int) -> list[str]:
    """Torch warns of it, too, but once for each of its loaders, and counts one rank alone."""
    if workers <= cpu_count.available():
        return []
    return [
        f"{workers} data workers share {cpu_count.available()} CPUs here: lower data.workers if data_wait_s is high"
    ]


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


def modules_in_eval_mode(model: nn.Module) -> list[str]:
    """The outermost modules in eval mode that have trainable parameters."""
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found) or "the model" in found
        if not module.training and not inside and any(p.requires_grad for p in module.parameters()):
            found.append(name or "the model")
    return found
