"""Save, load and hash a model's weights (safetensors)."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.checkpoints import Checkpoint

from ..parallel import buffers
from ..parallel.strategy import ParallelStrategy

_COMPLEX = "complex128"  # metadata key: names of tensors stored as pairs of float64, as safetensors lacks complex128
_CONTENT = "weights_sha256"  # metadata key: the hash of what a file holds
_FROZEN = "frozen_sha256"  # metadata key: the hash of what the file names.FROZEN beside it holds, which is part of it


def averaged(checkpoint: Checkpoint) -> Path:
    """The file of a checkpoint's averaged weights, where there is an average, else of its weights."""
    return checkpoint.file(names.EMA if checkpoint.has(names.EMA) else names.MODEL)


def weights_sha256(state: Mapping[str, Any]) -> str:
    """SHA-256 in hex over names, shapes, dtypes and bytes, in the names' order. Equal hashes mean equal bits.

    Entries that are not tensors are not hashed.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors_of(state)):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(_bytes(tensor).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def on_host(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Copies of the tensors of a state_dict in the host's memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors_of(state).items()}


def save(state: Mapping[str, Any], path: Path, *, content: str | None = None, frozen: str | None = None) -> None:
    """Write the tensors of a state_dict as safetensors. Tied weights are written once a name.

    `content` is their hash, `frozen` that of the tensors in names.FROZEN, to be read with them; each is written down.
    """
    written: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    paired = []
    for name, tensor in tensors_of(state).items():
        whole = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
        if whole.dtype == torch.complex128:
            paired.append(name)
            whole = torch.view_as_real(whole)
        shared = whole.numel() > 0 and whole.untyped_storage().data_ptr() in seen
        written[name] = whole.clone() if shared else whole
        seen.add(written[name].untyped_storage().data_ptr())
    told = {_COMPLEX: "\n".join(paired), _CONTENT: content or "", _FROZEN: frozen or ""}
    save_file(written, path, {key: text for key, text in told.items() if text} or None)


def load(
    model: nn.Module,
    path: Path,
    extra: Mapping[str, Any] | None = None,
    free: Collection[str] = frozenset(),
    *,
    strategy: ParallelStrategy | None = None,
) -> None:
    """Load the weights in `path` into `model`, each as its own dtype and memory order, and see that they arrived.

    `extra` is what the state_dict held beside tensors; without it the model's own stays. The buffers `free` take the
    shapes that they have there. `strategy` is what spreads the model over the ranks, where one does already; then all
    ranks call it. Raises ConfigError that names every tensor which is missing, left over or of another
    shape, or which the model did not take.
    """
    put(model, read(path), str(path), extra, free, strategy=strategy)


def put(
    model: nn.Module,
    found: Mapping[str, torch.Tensor],
    where: str,
    extra: Mapping[str, Any] | None = None,
    free: Collection[str] = frozenset(),
    *,
    strategy: ParallelStrategy | None = None,
) -> None:
    """`load` with tensors that are read already, of what messages call `where`."""
    give = model.state_dict if strategy is None else strategy.full_weights
    take = model.load_state_dict if strategy is None else strategy.load_full_weights
    for name in free:
        if name in found:
            buffers.put(model, name, buffers.Buffer(found[name], persistent=True))
    wanted = give()  # all ranks take part
    tensors = tensors_of(wanted)
    if problems := list(misfits(found, tensors).values()):
        raise ConfigError(f"The weights in {where} do not fit the model: {'; '.join(problems)}")
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    wanted.update({**(extra or {}), **found})
    try:
        with buffers.writable(model):
            take(wanted)
    except RuntimeError as error:
        raise ConfigError(f"The model does not take the weights in {where}: {error}") from None
    now = give()  # all ranks take part
    lost = [name for name, dtype in dtypes.items() if not _equal(now.get(name), found[name].to(dtype))]
    if lost:
        raise ConfigError(
            f"{', '.join(lost[:5])} did not arrive in the model: after load_state_dict its state_dict tells other numbers "
            f"than {where} holds. Where a model has a state_dict of its own, load_state_dict must be its inverse"
        )


def misfits(found: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """What keeps `found` from being loaded into a model whose state_dict has `tensors`: a sentence for each name."""
    problems = {name: f"{name} is missing there" for name in tensors if name not in found}
    problems |= {name: f"{name} is not in the model" for name in found if name not in tensors}
    return problems | {
        name: f"{name} is {_shape(found[name])} there and {_shape(tensor)} in the model"
        for name, tensor in tensors.items()
        if name in found
        and (found[name].shape != tensor.shape or (found[name].is_complex() and not tensor.is_complex()))
    }


def check(model: nn.Module) -> None:
    """Raise ConfigError if the model holds a tensor that cannot be saved: sparse or quantized."""
    for name, tensor in tensors_of(model.state_dict()).items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise ConfigError(f"{name} is a tensor of layout {tensor.layout}, and only dense ones can be saved")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of weights by name, on the CPU, with those of names.FROZEN where it is a part of them.

    Raises ConfigError, also where that file is not there, or has not the hash that `path` tells.
    """
    found, told = _read(path)
    if _FROZEN not in told:
        return found
    beside = path.with_name(names.FROZEN)
    frozen, _ = _read(beside)
    if weights_sha256(frozen) != told[_FROZEN]:
        raise ConfigError(f"{beside} does not hold what {path.name} was saved with: its hash is another")
    return {**found, **frozen}


def content_of(path: Path) -> str | None:
    """The hash of what the file holds, as it was written down; None where it was not. Raises OSError or ValueError."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(_CONTENT)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, and metadata."""
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as safetensors: {error}") from None
    paired = told.get(_COMPLEX, "").split("\n")
    return {n: torch.view_as_complex(tensor) if n in paired else tensor for n, tensor in found.items()}, told


def tensors_of(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The entries of a state_dict that are tensors."""
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _shape(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)}{' of complex numbers' if tensor.is_complex() else ''}"


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resolve_conj().resolve_neg().flatten().view(torch.uint8)


def _equal(one: Any, other: torch.Tensor) -> bool:
    """Whether the bits are the same; a number that is none equals itself."""
    if not isinstance(one, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(_bytes(tensor.detach().contiguous().to(one.device)) for tensor in (one, other)))
