"""The state of a run into a checkpoint and out of it."""

import pickle
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from train import weights
from train.checkpoint import Checkpoint, Checkpoints
from train.files import write_json
from train.optim import Updater
from train.outcome import ConfigError
from train.parallel import Spread
from train.progress import Progress
from train.world import World


@dataclass(frozen=True)
class State:
    """The objects whose state a checkpoint holds."""

    model: nn.Module
    updater: Updater
    spread: Spread
    world: World


def save(state: State, progress: Progress, checkpoints: Checkpoints, digest: str) -> None:
    """Write and commit the checkpoint of `progress.step`. All ranks call it; what fails on one is raised on all."""
    world = state.world
    world.share_from_leader(list(state.model.buffers()))
    generators = world.gather(_generators(world.device))
    staging = checkpoints.staging(progress.step)
    world.together(lambda: _write(state, progress, generators, staging))
    world.together(lambda: _commit(state, progress, checkpoints, digest) if world.leads else None)


def restore(state: State, checkpoint: Checkpoint) -> Progress:
    """Load `checkpoint` into `state`. Every rank calls it.

    What only means something to the same ranks, the global generators and what communication hooks remember, is left
    out when there is another number of them.
    """
    weights.load(state.model, checkpoint.file("model.safetensors"))
    if state.updater.average is not None:
        weights.load(state.updater.average.model, checkpoint.file("ema.safetensors"))
    found = _unpickled(checkpoint.file("state.pt"), state.world.device)
    state.updater.load(found["update"])
    rank, generators = state.world.rank, found["generators"]
    if len(generators) == state.world.size:
        _set_generators(generators[rank], state.world.device)
        if checkpoint.has(f"rank_{rank:05d}.pt"):
            state.spread.load(_unpickled(checkpoint.file(f"rank_{rank:05d}.pt"), state.world.device))
    return Progress.from_json(checkpoint.progress())


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


def _write(state: State, progress: Progress, generators: list[dict[str, Any]], staging: Path) -> None:
    own = state.spread.state()
    if state.world.leads or own is not None:
        staging.mkdir(parents=True, exist_ok=True)
    if own is not None:
        torch.save(own, staging / f"rank_{state.world.rank:05d}.pt")
    if not state.world.leads:
        return
    weights.save(state.model, staging / "model.safetensors")
    if state.updater.average is not None:
        weights.save(state.updater.average.evaluated(), staging / "ema.safetensors")
    torch.save({"update": state.updater.state(), "generators": generators}, staging / "state.pt")
    write_json(staging / "progress.json", progress.as_json())


def _commit(state: State, progress: Progress, checkpoints: Checkpoints, digest: str) -> None:
    checkpoints.commit(
        progress.step,
        {
            "world_size": state.world.size,
            "config_digest": digest,
            "weights_sha256": weights.weights_sha256(state.model.state_dict()),
            "best_step": progress.best_step,
            "metrics": progress.evaluation,
        },
    )


def _generators(device: torch.device) -> dict[str, Any]:
    """The global generators' states of this rank, in types that load without pickle."""
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _set_generators(state: dict[str, Any], device: torch.device) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
