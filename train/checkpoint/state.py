"""The state of a run into a checkpoint and out of it."""

import logging
import pickle
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phalanx.common.files import write_json
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint, Checkpoints

from ..distributed.world import World
from ..optim.optimizer_average import OwnAverage
from ..optim.updater import Updater
from ..parallel import buffers
from ..parallel.ddp import DDPStrategy
from . import weights
from .extra_state import extra, restored
from .progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """The objects whose state a checkpoint holds."""

    model: nn.Module
    updater: Updater
    spread: DDPStrategy
    world: World


def save(state: State, progress: Progress, checkpoints: Checkpoints, digest: str) -> None:
    """Write and commit the checkpoint of `progress.step`. All ranks call it; what fails on one is raised on all.

    Raises ConfigError where the ranks' parameters differ: they would train different models.
    """
    own = {name: buffer.value for name, buffer in buffers.named(state.model).items() if buffer.value is not None}
    parameters = dict(state.model.named_parameters())
    unlike = buffers.unlike({**parameters, **own}, state.world)
    _check_alike(unlike, parameters, progress.step)
    staging, world = checkpoints.staging(progress.step), state.world
    facts = {"config_digest": digest, "own_buffers": sorted({name for names in unlike for name in names})}
    try:
        world.raise_on_all(checkpoints.saving(lambda: _write(state, progress, unlike[world.rank], staging)))
        world.raise_on_all(
            checkpoints.saving(lambda: _commit(state, progress, checkpoints, facts) if world.is_rank_zero else None)
        )
    except Exception:
        if world.is_rank_zero:
            checkpoints.drop(progress.step)
        raise


def _check_alike(unlike: Sequence[Sequence[str]], parameters: Collection[str], step: int) -> None:
    """All ranks call it with the same."""
    for rank, differ in enumerate(unlike):
        if found := [name for name in differ if name in parameters]:
            raise ConfigError(
                f"After step {step} the parameter {found[0]} is not the same on rank {rank} as on rank 0"
                f"{f', nor are {len(found) - 1} others' if len(found) > 1 else ''}: they would train different models. "
                "A forward that writes into a parameter, as one that is initialised from data, writes what its own rank "
                "sees. Write it in __init__, or make it a buffer",
                agreed=True,
            )


def restore(state: State, checkpoint: Checkpoint) -> Progress:
    """Load `checkpoint` into `state`. Every rank calls it.

    What only means something to the same ranks, buffers and extra state of their own and what communication hooks
    remember, is left out when there is another number of them: all take rank 0's.
    """
    device, rank, average = state.world.device, state.world.rank, state.updater.average
    found = _unpickled(checkpoint.file(names.STATE), device)
    own: dict[str, Any] = {}
    if checkpoint.manifest["world_size"] == state.world.size:
        own = _own(checkpoint, rank, device)
    elif state.world.is_rank_zero and checkpoint.manifest.get("own_buffers"):
        _say_rank_0s(checkpoint, state.world.size)
    kept = {name: restored(value) for name, value in (own.get("extra") or found.get("extra", {})).items()}
    free = found.get("in_weights", [])
    if average is not None and not isinstance(average, OwnAverage):
        weights.load(state.model, checkpoint.file(names.EMA), kept, free)
        average.take()
    weights.load(state.model, checkpoint.file(names.MODEL), kept, free)
    for name, (value, persistent) in {**found.get("buffers", {}), **own.get("buffers", {})}.items():
        buffers.put(state.model, name, buffers.Buffer(value, persistent))
    state.updater.load(found["update"])
    if own.get("hook") is not None:
        state.spread.load(own["hook"])
    return Progress.from_json(checkpoint.progress())


def restore_model(model: nn.Module, checkpoint: Checkpoint, file: Path) -> None:
    """Load a model alone, on the CPU: weights of `file`, which is one of `checkpoint`, and rank 0's buffers and extra
    state. Raises ConfigError."""
    found = _unpickled(checkpoint.file(names.STATE), torch.device("cpu"))
    kept = {name: restored(value) for name, value in found.get("extra", {}).items()}
    weights.load(model, file, kept, found.get("in_weights", []))
    for name, (value, persistent) in found.get("buffers", {}).items():
        buffers.put(model, name, buffers.Buffer(value, persistent))


def _own(checkpoint: Checkpoint, rank: int, device: torch.device) -> dict[str, Any]:
    """What this rank alone kept. Checkpoints of older versions hold there what the communication hook remembers."""
    name = names.rank_state(rank)
    if not checkpoint.has(name):
        return {}
    found = _unpickled(checkpoint.file(name), device)
    return {"hook": found} if "iteration" in found else found


def _say_rank_0s(checkpoint: Checkpoint, size: int) -> None:
    names = checkpoint.manifest["own_buffers"]
    logger.warning(
        "%s was saved by %d ranks, each with buffers of its own (%s%s). On %d ranks all go on with rank 0's",
        checkpoint.folder.name,
        checkpoint.manifest["world_size"],
        ", ".join(names[:5]),
        f" and {len(names) - 5} more" if len(names) > 5 else "",
        size,
    )


def extend(state: State, checkpoint: Checkpoint, began: float) -> Progress:
    """Load the last `checkpoint` of a finished run, to go on in a run of one's own. Every rank calls it."""
    progress = restore(state, checkpoint)
    assert not progress.records, "a run writes a line at its last step"
    # What is best, and how long it took, is the new run's own.
    return replace(progress, began=began, best_step=None, best_value=None, seconds={}, world_sizes=[])


def _unpickled(path: Path, device: torch.device) -> dict[str, Any]:
    """Tensors and plain values; whatever else a pickle could do is refused. Raises ConfigError then."""
    try:
        found: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ConfigError(
            f"{path} is not loaded: it holds something else than tensors and plain values, which only a file made by "
            f"others does ({str(error).splitlines()[0]}). Set {path.parent} aside to continue from an older checkpoint"
        ) from None
    return found


def _write(state: State, progress: Progress, unlike: Sequence[str], staging: Path) -> None:
    """`unlike` names the buffers of which this rank's are not rank 0's."""
    contents, held = state.model.state_dict(), buffers.named(state.model)
    own = {
        "hook": state.spread.state(),
        "buffers": {name: list(held[name]) for name in unlike if name in held},
        "extra": extra(contents),
    }
    if state.world.is_rank_zero or any(own.values()):
        staging.mkdir(parents=True, exist_ok=True)
    if any(own.values()):
        torch.save(own, staging / names.rank_state(state.world.rank))
    if not state.world.is_rank_zero:
        return
    weights.save(state.model, staging / names.MODEL)
    average = state.updater.average
    if average is not None:
        with average.placed():
            weights.save(state.model, staging / names.EMA)
    written = {name for name, buffer in held.items() if buffer.value is not None and name in contents}
    rest = {
        "in_weights": sorted(written),
        "buffers": {name: list(buffer) for name, buffer in held.items() if name not in written},
        "extra": own["extra"],
    }
    torch.save({"update": state.updater.state(), **rest}, staging / names.STATE)
    write_json(staging / names.PROGRESS, progress.as_json())


def _commit(state: State, progress: Progress, checkpoints: Checkpoints, facts: dict[str, Any]) -> None:
    checkpoints.commit(
        progress.step,
        {
            "world_size": state.world.size,
            **facts,
            "weights_sha256": weights.weights_sha256(state.model.state_dict()),
            "best_step": progress.best_step,
            "metrics": progress.evaluation,
        },
    )
