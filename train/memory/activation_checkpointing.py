"""Activation checkpointing: blocks of a model keep their inputs alone, and are computed again in the backward.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". By torch's non-reentrant checkpoint, which works under
DistributedDataParallel without static_graph, and with parameters that take no part in some steps.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from phalanx.common.name_patterns import listed, no_match, no_pattern
from phalanx.exit.codes import ConfigError

from ..parallel import buffers

_KEY = "train.checkpoint_activations"
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # have no forward of their own


def checkpoint_activations(model: nn.Module, which: str | int | None, *, compiled: bool = False) -> list[str]:
    """Checkpoint the blocks of `model` that `which` names, in place; returns their names.

    `which` is "all", a number n for every n-th block from the first on, or a regular expression for modules' names, of
    which those within another one that it matches are left out; None is none. Raises ConfigError where there is none.

    Where the model is `compiled`, so is each of these blocks by itself: within one graph the compiler would lose sight of
    what a second forward does to buffers.
    """
    if which is None:
        return []
    names = _blocks(model, "") if which == "all" or isinstance(which, int) else _matching(model, which)
    if not names:
        there = [name for name, module in model.named_modules() if name and not isinstance(module, _CONTAINERS)]
        if isinstance(which, str) and which != "all":
            raise ConfigError(no_match(which, _KEY, there, "module"))
        raise ConfigError(
            f"{_KEY}={which} finds no blocks, which are members of an nn.ModuleList or nn.Sequential with modules of their "
            f"own. Type a regular expression for the names of modules: {listed(there)}"
        )
    chosen = names[::which] if isinstance(which, int) else names
    for name in chosen:
        block = model.get_submodule(name)
        # The forward, and not the call: a hook of the user's runs once.
        own = torch.compile(block.forward) if compiled else block.forward
        forward = partial(_forward, block, own)
        block.forward = torch.compiler.disable(forward) if compiled else forward  # type: ignore[no-untyped-call]
    return chosen


def _blocks(module: nn.Module, path: str) -> list[str]:
    """Members of lists and sequences that have modules of their own, the outermost ones.

    Lists and sequences in lists are searched; a sequence of layers in a list is a block where there is none in it.
    """
    found = []
    listed = isinstance(module, (nn.ModuleList, nn.Sequential))
    for name, child in module.named_children():
        own = f"{path}.{name}" if path else name
        plain = isinstance(child, (*_CONTAINERS, nn.Sequential))
        if listed and not plain and any(True for _ in child.children()):
            found.append(own)
            continue
        inner = _blocks(child, own)
        if not inner and listed and isinstance(child, nn.Sequential) and len(child) > 0:
            inner = [own]
        found += inner
    return found


def _matching(model: nn.Module, pattern: str) -> list[str]:
    if (told := no_pattern(pattern, _KEY, f"{_KEY}=blocks, or all, or a number")) is not None:
        raise ConfigError(told)
    searched = re.compile(pattern)
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and not isinstance(module, _CONTAINERS) and searched.search(name):
            found.append(name)
    return found


def _forward(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    holders = [module for module in block.modules() if module._buffers]
    contexts = partial(_contexts, holders) if holders else _no_contexts
    # With the state of the generators, so that dropout draws the same again.
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


def _no_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), nullcontext()


def _contexts(holders: list[nn.Module]) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """That of the forward, and that of its repetition, which sees the buffers as they were and leaves them alone."""
    return nullcontext(), _with_buffers(buffers.save_buffers(holders))


@contextmanager
def _with_buffers(before: buffers.SavedBuffers) -> Iterator[None]:
    now = buffers.save_buffers([module for module, _, _, _ in before.where])
    before.restore()
    try:
        yield
    finally:
        now.restore()
