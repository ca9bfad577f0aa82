"""Save and restore the state of Python objects in place: models, tasks, and all that they reference."""

import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

_FOREIGN = {"torch", "numpy", "wandb", *sys.stdlib_module_names}  # their objects are left alone, but for those below
_PLAIN = {"types", "argparse", "collections"}  # of the standard library: namespaces and containers


@contextmanager
def unchanged(*roots: object, parameters: bool = True) -> Iterator[None]:
    """Restore `roots` on exit: tensors, attributes, and what these reference, down to counters and caches.

    Contents are restored in place, not replaced by copies, because hooks and other objects may hold the same objects. The
    global generators of torch, NumPy and Python are restored, too. Gradients are not.
    """
    memory = ObjectState(roots, parameters=parameters)
    generators = _generators()
    try:
        yield
    finally:
        memory.restore()
        for put_back in generators:
            put_back()


class ObjectState:
    """A saved state of `roots` and all that they reference. Takes as much memory as their tensors."""

    def __init__(self, roots: Iterable[object], *, parameters: bool) -> None:
        """Without `parameters` the values of nn.Parameters are not saved."""
        self._parameters = parameters
        self._seen: dict[int, object] = {}  # alive, so that no other object gets its id
        self._storages: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._put_back: list[Callable[[], None]] = []
        left = list(roots)
        while left:
            item = left.pop()
            if isinstance(item, _ATOMS) or id(item) in self._seen:
                continue
            self._seen[id(item)] = item
            left += self._remember(item)

    def restore(self) -> None:
        for put_back in self._put_back:
            put_back()
        for storage, before in self._storages.values():
            _restore_bytes(storage, before)

    def _remember(self, item: object) -> Iterable[object]:
        """Save how to restore `item`; returns the objects that it references."""
        if isinstance(item, torch.Tensor):
            return self._remember_tensor(item)
        if isinstance(item, dict):
            return self._remember_items(item)
        if isinstance(item, list | set | deque | bytearray):
            return self._remember_members(item)
        if isinstance(item, tuple | frozenset):
            return item
        if isinstance(item, types.FunctionType):
            return self._remember_cells(item)
        if isinstance(item, types.MethodType):
            return (item.__self__, item.__func__)
        if isinstance(item, partial):
            return (item.func, *item.args, *item.keywords.values())
        put_back = _generator(item)
        if put_back is not None:
            self._put_back.append(put_back)
            return ()
        return (vars(item),) if _descends(item) else ()

    def _remember_tensor(self, tensor: torch.Tensor) -> Iterable[object]:
        if type(tensor) not in _TENSORS or tensor.layout is not torch.strided or tensor.device.type == "meta":
            return ()
        storage, data, requires_grad = tensor.untyped_storage(), tensor.data, tensor.requires_grad
        if self._parameters or not isinstance(tensor, nn.Parameter):
            self._storages.setdefault(storage.data_ptr(), (storage, storage.clone()))  # type: ignore[no-untyped-call]
        shape = (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())

        def put_back() -> None:
            now = (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset())
            if now != shape or tensor.data_ptr() != data.data_ptr():
                tensor.data = data
            if tensor.is_leaf and tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)

        self._put_back.append(put_back)
        return ()

    def _remember_items(self, held: dict[Any, Any]) -> Iterable[object]:
        kind: Any = OrderedDict if isinstance(held, OrderedDict) else dict
        before = list(kind.items(held))

        def put_back() -> None:
            if not _same(kind.items(held), before):
                kind.clear(held)
                for name, value in before:
                    kind.__setitem__(held, name, value)

        self._put_back.append(put_back)
        return [value for _, value in before]

    def _remember_members(self, held: Any) -> Iterable[object]:
        before = list(held)

        def put_back() -> None:
            if len(held) != len(before) or any(a is not b for a, b in zip(held, before, strict=True)):
                held.clear()
                (held.update if isinstance(held, set) else held.extend)(before)

        self._put_back.append(put_back)
        return before

    def _remember_cells(self, function: types.FunctionType) -> Iterable[object]:
        """What a closure has bound."""
        found = []
        for cell in function.__closure__ or ():
            try:
                found.append(cell.cell_contents)
            except ValueError:  # still empty
                continue
            self._put_back.append(partial(setattr, cell, "cell_contents", found[-1]))
        return [*found, vars(function)]


_ATOMS = (str, bytes, int, float, complex, bool, types.NoneType, type, types.ModuleType, torch.dtype, torch.device)
_TENSORS = (torch.Tensor, nn.Parameter, nn.Buffer)


def _descends(item: object) -> bool:
    if isinstance(item, nn.Module):
        return True
    if isinstance(item, Dataset) or not hasattr(item, "__dict__"):
        return False
    module = type(item).__module__
    return module in _PLAIN or module.partition(".")[0] not in _FOREIGN


def _same(items: Iterable[tuple[Any, Any]], before: list[tuple[Any, Any]]) -> bool:
    now = list(items)
    return len(now) == len(before) and all(
        a is b and value is old for (a, value), (b, old) in zip(now, before, strict=True)
    )


def _restore_bytes(storage: torch.UntypedStorage, before: torch.UntypedStorage) -> None:
    if storage.nbytes() != before.nbytes():
        storage.resize_(before.nbytes())
    now, then = (torch.empty(0, dtype=torch.uint8, device=part.device).set_(part) for part in (storage, before))
    if not torch.equal(now, then):  # memory that was mapped and never written stays shared
        now.copy_(then)


def _generator(item: object) -> Callable[[], None] | None:
    """How to put a generator back, or None where `item` is none."""
    if isinstance(item, torch.Generator):
        return partial(_set_state, item, item.get_state())
    if isinstance(item, random.Random):
        return partial(item.setstate, item.getstate())
    if isinstance(item, np.random.RandomState):
        return partial(item.set_state, item.get_state())
    if isinstance(item, np.random.Generator):
        return partial(setattr, item.bit_generator, "state", item.bit_generator.state)
    if isinstance(item, np.ndarray) and item.flags.writeable and item.dtype != object:
        return partial(np.copyto, item, item.copy())
    return None


def _set_state(generator: torch.Generator, state: torch.Tensor) -> None:
    generator.set_state(state)


def _generators() -> list[Callable[[], None]]:
    found: list[Callable[[], None]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
        partial(torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found.append(partial(torch.cuda.set_rng_state, torch.cuda.get_rng_state()))
    return found
