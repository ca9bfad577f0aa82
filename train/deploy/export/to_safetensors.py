"""safetensors: the weights alone, for a model that is built by its own code."""

from collections.abc import Mapping
from typing import Any

import torch

from phalanx.deployment.layout import MODELS, SAFETENSORS

from ...checkpoint import weights
from .exporting import HALVES, Exporting


def write(exporting: Exporting) -> Mapping[str, Any]:
    """Returns the config's node of the model, which builds it."""
    state: Mapping[str, Any] = exporting.parts.model.state_dict()
    half = HALVES.get(exporting.dtype)
    if half is not None:
        state = {name: _half(tensor, half) for name, tensor in weights.tensors_of(state).items()}
    weights.save(state, exporting.folder / MODELS[SAFETENSORS], content=weights.weights_sha256(state))
    return exporting.parts.config.model


def _half(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Written in 16 bits; who loads it computes in those of the model."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
