"""Broadcast rank 0's model before training: every rank builds its own, perhaps from a generator of its own."""

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from ..distributed.world import World
from . import buffers


def broadcast_model(model: nn.Module, world: World) -> None:
    """Overwrite weights and buffers of `model`, whole on every rank, with rank 0's. All ranks call it.

    Raises ConfigError where the ranks' models have other parameters.
    """
    if world.size == 1:
        return
    _check_same_parameters(model, world)
    # All ranks take part in all of it.
    if any(names for names in buffers.differing_names(dict(model.named_parameters()), world)):
        # As all saw a difference; rank 0 sends.
        world.broadcast_tensors(contents := [buffers.as_bytes(p) for p in model.parameters() if p.numel()])
        with torch.no_grad():
            for parameter, content in zip((p for p in model.parameters() if p.numel()), contents, strict=True):
                parameter.copy_(content.view(parameter.dtype).view(parameter.shape))
    buffers.broadcast_buffers(model, world)


def _check_same_parameters(model: nn.Module, world: World) -> None:
    shapes = [(name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in model.named_parameters()]
    others = [set(found) ^ set(shapes) for found in world.gather(shapes)]  # all ranks take part
    if different := next((found for found in others if found), None):
        name, shape, dtype, trains = min(different)
        raise ConfigError(
            f"The ranks' models differ: {name} of shape {shape} and {dtype}, {'trained' if trains else 'frozen'}, is "
            "not the same on all. A model must not depend on the rank that builds it",
            agreed=True,
        )
