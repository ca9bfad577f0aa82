"""Snapshot of the state of a run at one step: gathered from all ranks, then written to the files of a checkpoint."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phalanx.common.files import write_json
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoints

from ..parallel import buffers
from . import frozen_weights, stream_position, weights
from .extra_state import extra_state_of
from .progress import Progress
from .state import State


@dataclass(frozen=True)
class Whole:
    """What rank 0 writes; `rest` is all of state.pt. `average` is a copy of the averaged weights on the host.

    `frozen` names the weights that never train.
    """

    weights: Mapping[str, Any]
    average: Mapping[str, Any] | None
    rest: Mapping[str, Any]
    progress: Mapping[str, Any]
    frozen: Collection[str]


@dataclass(frozen=True)
class Snapshot:
    """What this rank writes: `own`, which only it has, and on rank 0 `whole`. `facts` go into the manifest.

    Tensors may be those that training goes on with: a saver writes or copies them before the next step.
    """

    step: int
    rank: int
    own: Mapping[str, Any]
    whole: Whole | None
    facts: Mapping[str, Any]


def take_snapshot(state: State, progress: Progress, digest: str) -> Snapshot:
    """The state after `progress.step`. All ranks call it; what fails on one is raised on all.

    Raises ConfigError where the ranks' parameters differ: they would train different models.
    """
    held = {name: buffer.value for name, buffer in buffers.named(state.model).items() if buffer.value is not None}
    replicated = state.strategy.replicated_parameters()
    unlike = buffers.differing_names({**replicated, **held}, state.world)  # all ranks take part
    _check_alike(unlike, replicated, progress.step)
    facts = {
        "world_size": state.world.size,
        "config_digest": digest,
        "own_buffers": sorted({name for differ in unlike for name in differ}),
        "best_step": progress.best_step,
        "metrics": progress.evaluation,
    }
    # All ranks take part.
    return state.world.raise_on_all(lambda: _take(state, progress, unlike[state.world.rank], facts))


def write(snapshot: Snapshot, folder: Path) -> None:
    """Write this rank's files into `folder`, which is made where there is something to write."""
    has_own = any(snapshot.own.values())
    if has_own or snapshot.whole is not None:
        folder.mkdir(parents=True, exist_ok=True)
    if has_own:
        torch.save(dict(snapshot.own), folder / names.rank_state(snapshot.rank))
    if (whole := snapshot.whole) is None:
        return
    trained, frozen = frozen_weights.split(whole.weights, whole.frozen)
    digest = frozen_weights.store(frozen, folder) if frozen else None
    weights.save(trained, folder / names.MODEL, frozen=digest)
    if whole.average is not None:
        average, its = frozen_weights.split(whole.average, whole.frozen)
        alike = digest is not None and weights.weights_sha256(its) == digest
        weights.save(average if alike else whole.average, folder / names.EMA, frozen=digest if alike else None)
    torch.save(dict(whole.rest), folder / names.STATE)
    write_json(folder / names.PROGRESS, dict(whole.progress))


def commit(snapshot: Snapshot, checkpoints: Checkpoints) -> None:
    """On rank 0, after all ranks have written: the files in the staging folder become the checkpoint."""
    if snapshot.whole is not None:
        digest = weights.weights_sha256(snapshot.whole.weights)
        checkpoints.commit(snapshot.step, {**snapshot.facts, "weights_sha256": digest})


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


def _take(state: State, progress: Progress, unlike: Sequence[str], facts: Mapping[str, Any]) -> Snapshot:
    """`unlike` names the buffers of which this rank's are not rank 0's. All ranks call it."""
    strategy, world, held = state.strategy, state.world, buffers.named(state.model)
    contents = strategy.full_weights()  # all ranks take part
    average = _averaged(state)
    update = strategy.full_optimizer_state(state.updater.state())  # all ranks take part
    kept = extra_state_of(contents)
    own = {
        "hook": strategy.state(),
        "buffers": {name: list(held[name]) for name in unlike if name in held},
        "extra": kept,
    }
    if state.stream is not None:
        own["stream"] = stream_position.saved(state.stream, progress.position)
    if not world.is_rank_zero:
        return Snapshot(progress.step, world.rank, own, None, facts)
    written = {name for name, buffer in held.items() if buffer.value is not None and name in contents}
    rest = {
        "update": update,
        "in_weights": sorted(written),
        "buffers": {name: list(buffer) for name, buffer in held.items() if name not in written},
        "extra": kept,
    }
    whole = Whole(contents, average, rest, progress.as_json(), state.frozen)
    return Snapshot(progress.step, world.rank, own, whole, facts)


def _averaged(state: State) -> dict[str, Any] | None:
    """On rank 0 the averaged weights, where there are any. All ranks call it."""
    average = state.updater.average
    if average is None:
        return None
    with average.swapped_in():
        contents = state.strategy.full_weights()  # all ranks take part
        return weights.on_host(contents) if state.world.is_rank_zero else None
