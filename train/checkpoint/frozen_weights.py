"""Weights that never train, as below LoRA adapters, are stored once for all checkpoints of a run.

    checkpoints/step_00000090/model.safetensors    what trains, and buffers; its metadata has the hash of the rest
    checkpoints/step_00000090/frozen.safetensors   the rest: the same file in each checkpoint, by hard links

So each checkpoint is whole by itself: a file is gone from the disk when the last checkpoint that has it is deleted, and a
copied folder holds all. What a user's code writes into such a weight is seen in its hash, and stored anew.
"""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from phalanx.common.files import read_text, sha256
from phalanx.run_folder import names

from . import weights


def split(
    state: Mapping[str, torch.Tensor], frozen: Collection[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors of a state_dict that train, or are buffers, and those whose names are in `frozen`."""
    tensors = weights.tensors_of(state)
    apart = {name: tensor for name, tensor in tensors.items() if name in frozen}
    return {name: tensor for name, tensor in tensors.items() if name not in apart}, apart


def store(frozen: Mapping[str, torch.Tensor], folder: Path) -> str:
    """Put `frozen` into the staging `folder` of a checkpoint; returns their hash (`weights_sha256`).

    An older checkpoint's file is linked where it has the same hash, by its bytes, too. Else, and where the file system
    has no hard links, a file is written. Raises OSError.
    """
    digest = weights.weights_sha256(frozen)
    file = folder / names.FROZEN
    for other in sorted(folder.parent.glob(f"{names.STEP}*[0-9]"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if weights.content_of(other / names.FROZEN) != digest:
                continue
            os.link(other / names.FROZEN, file, follow_symlinks=False)
            written = json.loads(read_text(other / names.MANIFEST))["files"][names.FROZEN]
            if sha256(file) == written["sha256"]:
                return digest
        file.unlink(missing_ok=True)  # damaged since
    weights.save(frozen, file, content=digest)
    return digest
