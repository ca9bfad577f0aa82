"""A model that was written by `save_pretrained`, read by `from_pretrained` of its class."""

from pathlib import Path

from torch import nn

from phalanx.deployment.layout import Manifest
from phalanx.exit.codes import ConfigError
from phalanx.targets.instantiate import Targets

CLASS = "class"  # key of the manifest's `model`


def load_hugging_face(folder: Path, manifest: Manifest, builder: Targets) -> nn.Module:
    """Nothing is fetched, and no code of the folder is run. Raises ConfigError."""
    named = str((manifest.model or {}).get(CLASS))
    found = builder.resolve({"_target_": named}, "model", nn.Module)
    load = getattr(found, "from_pretrained", None)
    if not callable(load):
        raise ConfigError(f"{named} has no from_pretrained, so {folder} cannot be loaded. Export it anew")
    model: nn.Module = load(str(folder), local_files_only=True, use_safetensors=True)
    return model.eval()
