"""The state of a run, and how it is loaded from a checkpoint."""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint

from ..distributed.world import World
from ..freezing.phased_updater import PhasedUpdater
from ..loading.batch import apply
from ..loading.streams.stream_dataset import StreamFetcher
from ..optim.optimizer_average import OptimizerAverage
from ..optim.updater import Updater
from ..parallel import buffers
from ..parallel.strategy import ParallelStrategy
from . import stream_position, weights
from .extra_state import from_plain
from .progress import Progress

_CPU = torch.device("cpu")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """The objects whose state a checkpoint holds. `frozen` names the weights that never train in the whole run.

    `stream` reads the training set where that is a stream.
    """

    strategy: ParallelStrategy
    updater: Updater | PhasedUpdater
    world: World
    frozen: frozenset[str] = frozenset()
    stream: StreamFetcher | None = None

    @property
    def model(self) -> nn.Module:
        return self.strategy.model


def restore(state: State, checkpoint: Checkpoint, *, schedules: bool = True) -> Progress:
    """Load `checkpoint` into `state`; without `schedules` what the learning rate's schedules keep stays. All ranks call it.

    State of single ranks (own buffers, extra state, communication hooks) is only loaded if the number of ranks is the same;
    otherwise all take rank 0's.
    """
    device, rank, average = state.world.device, state.world.rank, state.updater.average
    strategy, model = state.strategy, state.model
    if state.stream is not None:
        stream_position.check_ranks(checkpoint.folder, checkpoint.manifest, state.world.size)
    found = unpickled(checkpoint.file(names.STATE), torch.device("cpu"))
    update = strategy.own_optimizer_state(
        found.pop("update")
    )  # before the device: its part may be all that has room there
    if not schedules:
        update = _without_schedules(update)
    found = _moved(found, device)
    own: dict[str, Any] = {}
    if checkpoint.manifest["world_size"] == state.world.size:
        own = _own(checkpoint, rank, device)
    elif state.world.is_rank_zero and checkpoint.manifest.get("own_buffers"):
        _say_rank_0s(checkpoint, state.world.size)
    kept = {name: from_plain(value) for name, value in (own.get("extra") or found.get("extra", {})).items()}
    free = found.get("in_weights", [])
    if average is not None and not isinstance(average, OptimizerAverage):
        weights.load(model, checkpoint.file(names.EMA), kept, free, strategy=strategy)
        average.take()
    weights.load(model, checkpoint.file(names.MODEL), kept, free, strategy=strategy)
    for name, (value, persistent) in {**found.get("buffers", {}), **own.get("buffers", {})}.items():
        buffers.put(model, name, buffers.Buffer(value, persistent))
    if state.stream is not None:
        found_there = _own(checkpoint, rank, _CPU).get("stream")  # whatever device the rest goes to
        stream_position.restore(state.stream, found_there, checkpoint.folder)
    progress = Progress.from_json(checkpoint.progress())
    state.updater.load(_moved(update, device), progress.step)
    if own.get("hook") is not None:
        strategy.load_state(own["hook"])
    return progress


def restore_model(
    model: nn.Module,
    checkpoint: Checkpoint,
    file: Path,
    strategy: ParallelStrategy | None = None,
    device: torch.device = _CPU,
) -> None:
    """Load a model alone: weights of `file`, which is one of `checkpoint`, and rank 0's buffers and extra state.

    `strategy` is what spreads the model over the ranks, where one does already; then all ranks call it. `device` is the
    model's. Raises ConfigError.
    """
    found = unpickled(checkpoint.file(names.STATE), _CPU)
    del found["update"]
    found = _moved(found, device)
    kept = {name: from_plain(value) for name, value in found.get("extra", {}).items()}
    weights.load(model, file, kept, found.get("in_weights", []), strategy=strategy)
    for name, (value, persistent) in found.get("buffers", {}).items():
        buffers.put(model, name, buffers.Buffer(value, persistent))


def _own(checkpoint: Checkpoint, rank: int, device: torch.device) -> dict[str, Any]:
    """The state of this rank. In checkpoints of older versions the file is the communication hook's state alone."""
    name = names.rank_state(rank)
    if not checkpoint.has(name):
        return {}
    found = unpickled(checkpoint.file(name), device)
    return {"hook": found} if "iteration" in found else found


def _say_rank_0s(checkpoint: Checkpoint, size: int) -> None:
    own = checkpoint.manifest["own_buffers"]
    logger.warning(
        "%s was saved by %d ranks, each with buffers of its own (%s%s). On %d ranks all go on with rank 0's",
        checkpoint.folder.name,
        checkpoint.manifest["world_size"],
        ", ".join(own[:5]),
        f" and {len(own) - 5} more" if len(own) > 5 else "",
        size,
    )


def _without_schedules(update: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an updater, or of the updaters of a task's phases, less that of schedules."""
    kept = {name: value for name, value in update.items() if name != "schedules"}
    if "phases" in kept:
        kept["phases"] = {phase: _without_schedules(its) for phase, its in kept["phases"].items()}
    return kept


def _moved(values: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    moved: dict[str, Any] = apply(dict(values), lambda tensor: tensor.to(device))
    return moved


def unpickled(path: Path, device: torch.device) -> dict[str, Any]:
    """torch.load with weights_only=True. Raises ConfigError for a file that holds anything else."""
    try:
        found: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"{path} is not loaded: it holds something else than tensors and plain values, which only a file made by "
            f"others does ({str(error).splitlines()[0]}). Set {path.parent} aside to continue from an older checkpoint"
        ) from None
    return found
