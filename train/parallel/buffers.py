"""A model's buffers by name: modules may reassign, add, resize and remove them."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from ..distributed.world import World


class Buffer(NamedTuple):
    """`value` is None where the name is taken and nothing is there; `persistent` ones are in the state_dict."""

    value: torch.Tensor | None
    persistent: bool


def named(model: nn.Module) -> dict[str, Buffer]:
    """All buffers, each under every name it has."""
    return {
        f"{prefix}.{leaf}" if prefix else leaf: Buffer(value, leaf not in module._non_persistent_buffers_set)
        for prefix, module in model.named_modules()
        for leaf, value in module._buffers.items()
    }


@torch.no_grad()
def put(model: nn.Module, name: str, buffer: Buffer) -> None:
    """Set a buffer of `model`: in place if shape and dtype are the same, since others may hold the tensor, too."""
    parent, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(parent)
    except AttributeError:
        return  # the module does not exist at the moment
    now, value = module._buffers.get(leaf), buffer.value
    if now is not None and value is not None and now.shape == value.shape and now.dtype == value.dtype:
        _fill(module, leaf, now, value)
    elif leaf in module._buffers:
        module._buffers[leaf] = value
    else:
        module.__dict__.pop(leaf, None)
        module.register_buffer(leaf, value, buffer.persistent)


def _fill(module: nn.Module, leaf: str, now: torch.Tensor, value: torch.Tensor) -> None:
    if not _shares(now):
        now.copy_(value)
    elif not torch.equal(now, value):
        module._buffers[leaf] = value.clone()


def _shares(tensor: torch.Tensor) -> bool:
    """Whether elements share memory, as in an expanded tensor, which cannot be written in place."""
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


@contextmanager
def writable(model: nn.Module) -> Iterator[None]:
    """Replace expanded buffers by writable copies inside; those that are not changed are restored."""
    made = [
        (module, leaf, value)
        for module in model.modules()
        for leaf, value in module._buffers.items()
        if value is not None and _shares(value)
    ]
    for module, leaf, value in made:
        module._buffers[leaf] = value.contiguous()
    yield
    for module, leaf, value in made:
        now = module._buffers.get(leaf)
        if now is not None and torch.equal(now, value):
            module._buffers[leaf] = value


def broadcast_buffers(model: nn.Module, world: World) -> None:
    """Broadcast rank 0's buffers, of whatever names and shapes, to all ranks. All ranks call it."""
    if world.size == 1:
        return
    own = named(model) if world.is_rank_zero else None
    shapes = None if own is None else [(name, _shape(buffer), buffer.persistent) for name, buffer in own.items()]
    values = []
    told = world.broadcast_object(shapes)  # all ranks take part, rank 0 sends
    for name, shape, _ in told:
        value = own[name].value if own is not None else None
        if value is not None:
            values.append(as_bytes(value))
        elif shape is not None:
            values.append(as_bytes(torch.empty(shape[0], dtype=shape[1], device=world.device)))
        else:
            values.append(torch.empty(0, dtype=torch.uint8, device=world.device))
    world.broadcast_tensors([value for value in values if value.numel()])  # all ranks take part, rank 0 sends
    if own is None:
        for (name, shape, persistent), value in zip(told, values, strict=True):
            put(model, name, Buffer(None if shape is None else value.view(shape[1]).view(shape[0]), persistent))


def _shape(buffer: Buffer) -> tuple[torch.Size, torch.dtype] | None:
    return None if buffer.value is None else (buffer.value.shape, buffer.value.dtype)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bytes, shape (bytes,), uint8: any backend can send them, whatever dtype and memory order."""
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def differing_names(tensors: Mapping[str, torch.Tensor], world: World) -> list[list[str]]:
    """For each rank the names of the tensors that are not the same bits as rank 0's. All ranks call it."""
    if world.size == 1:
        return [[]]
    own = {name: digest(tensor) for name, tensor in tensors.items()}
    whole = hashlib.sha256(repr(own).encode()).hexdigest()
    if len(set(world.gather(whole))) == 1:  # all ranks take part
        return [[] for _ in range(world.size)]
    first, *others = world.gather(own)  # all ranks take part, as all saw a difference
    return [[], *([name for name in {**first, **of} if first.get(name) != of.get(name)] for of in others)]


@dataclass(frozen=True)
class SavedBuffers:
    """The buffers before a step, to be restored if it is skipped."""

    where: list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]]  # the tensor itself and a copy

    @torch.no_grad()
    def restore(self) -> None:
        for module, leaf, tensor, before in self.where:
            module._buffers[leaf] = tensor
            tensor.copy_(before)

    @torch.no_grad()
    def restore_if(self, skipped: torch.Tensor) -> None:
        """Restore them where `skipped`, a float tensor, is not 0: on the device, unless a shape changed."""
        if not self.where or (skipped.device.type == "cpu" and not skipped):
            return
        for module, leaf, tensor, before in self.where:
            now = module._buffers.get(leaf)
            if now is not None and now.shape == before.shape and now.dtype == before.dtype:
                now.copy_(torch.where(skipped.bool(), before, now))
            elif skipped and (leaf not in module._non_persistent_buffers_set or not _finite(now)):
                # A table that grew matches its module's Python state and stays, unless it has a NaN.
                tensor.copy_(before)
                module._buffers[leaf] = tensor


def save_buffers(modules: list[nn.Module]) -> SavedBuffers:
    """Copies of the buffers that the modules hold themselves."""
    return SavedBuffers(
        [
            (module, leaf, tensor, tensor.detach().clone())
            for module in modules
            if module._buffers
            for leaf, tensor in module._buffers.items()
            if tensor is not None and not _shares(tensor)
        ]
    )


def _finite(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and bool(tensor.isfinite().all())


def digest(tensor: torch.Tensor) -> str:
    """A checksum: equal for equal bits, shapes and dtypes, on every rank. No cryptographic hash.

    Computed on the tensor's device: the sum of all words of 8 bytes, each times another odd number.
    """
    whole = as_bytes(tensor)
    words, rest = whole[: whole.numel() // 8 * 8], whole[whole.numel() // 8 * 8 :]
    total = sum(int(part) * (2 * i + 3) for i, part in enumerate(rest.tolist()))
    for start, block in _blocks(words.view(torch.int64) if words.numel() else words.long()):
        factors = torch.arange(2 * start + 1, 2 * (start + block.numel()), 2, device=block.device)
        total += int((block * factors).sum())
    return f"{tensor.dtype} {tuple(tensor.shape)} {total % 2**64}"


def _blocks(words: torch.Tensor, size: int = 1 << 20) -> Iterator[tuple[int, torch.Tensor]]:
    return ((start, words[start : start + size]) for start in range(0, words.numel(), size))
