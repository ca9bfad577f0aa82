"""A folder as `save_pretrained` of transformers, diffusers or timm's models writes it."""

from collections.abc import Mapping
from typing import Any

from phalanx.deployment.layout import HF, MODELS
from phalanx.exit.codes import ConfigError

from ..runtimes.hugging_face_runtime import CLASS
from .exporting import HALVES, Exporting


def write(exporting: Exporting) -> Mapping[str, Any]:
    """Returns the class that reads it."""
    model, kind = exporting.parts.model, type(exporting.parts.model)
    save = getattr(model, "save_pretrained", None)
    if not callable(save) or not callable(getattr(kind, "from_pretrained", None)):
        raise ConfigError(
            f"{kind.__name__} has no save_pretrained and from_pretrained, as models of transformers have. Type --to "
            "safetensors, or let model._target_ name such a model itself"
        )
    half = HALVES.get(exporting.dtype)
    state = {
        name: tensor.detach().clone().to(half)
        if half is not None and tensor.is_floating_point()
        else tensor.detach().clone()
        for name, tensor in model.state_dict().items()
    }
    save(str(exporting.folder), state_dict=state, safe_serialization=True, max_shard_size="1TB")
    if not (exporting.folder / MODELS[HF]).is_file():
        raise ConfigError(
            f"save_pretrained of {kind.__name__} wrote no {MODELS[HF]}, and no other file of weights is read safely. Type "
            "--to safetensors"
        )
    return {CLASS: f"{kind.__module__}.{kind.__qualname__}"}
