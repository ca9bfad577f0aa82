"""A model's weights as a file and as a hash."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from train.outcome import ConfigError


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 in hex over names, shapes, dtypes and bytes, in the names' order. Equal hashes mean equal bits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def save(model: nn.Module, path: Path) -> None:
    """Write the state_dict as safetensors. Tied weights are written once a name."""
    written: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        whole = tensor.detach().cpu().contiguous()
        shared = whole.numel() > 0 and whole.untyped_storage().data_ptr() in seen
        written[name] = whole.clone() if shared else whole
        seen.add(written[name].untyped_storage().data_ptr())
    save_file(written, path)


def load(model: nn.Module, path: Path) -> None:
    """Copy the weights in `path` into `model`, in place, each as its own dtype and memory order.

    Raises ConfigError that names every tensor which is missing, left over or of another shape.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as safetensors: {error}") from None
    wanted = model.state_dict()
    problems = [f"{name} is missing there" for name in wanted if name not in found]
    problems += [f"{name} is not in the model" for name in found if name not in wanted]
    problems += [
        f"{name} is {tuple(found[name].shape)} there and {tuple(tensor.shape)} in the model"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        raise ConfigError(f"The weights in {path} do not fit the model: {'; '.join(problems)}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
