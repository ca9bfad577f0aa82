"""Features of all ranks in one tensor, with gradients, for losses that compare all samples of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
import torch.distributed as dist

from phalanx.exit.codes import ConfigError

from ..distributed.world import World


@overload
def gather(features: torch.Tensor, with_offset: Literal[False] = False) -> torch.Tensor: ...


@overload
def gather(features: torch.Tensor, with_offset: Literal[True]) -> tuple[torch.Tensor, int]: ...


def gather(features: torch.Tensor, with_offset: bool = False) -> torch.Tensor | tuple[torch.Tensor, int]:
    """The features (n, …) of all samples of the batch, those of this rank's n samples among them, one rank after the other.

    For losses that compare every sample with all others, as contrastive ones do: sum the loss of this rank's samples
    against the features of all, and count this rank's samples. Gradients flow back to the rank whose features they are, so
    that training is that of one rank. Labels are gathered likewise, without gradients. `with_offset` gives also where this
    rank's first sample is among all.

    Ranks may have different numbers of samples, or none. All call it in the same order, with features of the same shape
    but for n. In an evaluation, and on one rank, the features are given back: there a batch is compared with itself.

        everyone, first = phalanx.gather(features, with_offset=True)
        targets = first + torch.arange(len(features))
        loss = F.cross_entropy(features @ everyone.T, targets, reduction="sum")
    """
    gatherer = _CURRENT.get()
    gathered, offset = (features, 0) if gatherer is None else gatherer.gather(features)
    return (gathered, offset) if with_offset else gathered


@dataclass(frozen=True)
class _Call:
    """One call of `gather` in a forward."""

    shape: tuple[int, ...]  # of one sample's features
    dtype: torch.dtype
    with_gradient: bool


class Gatherer:
    """Gathers in the training forwards of one step, in a process group of its own.

    The warm-up remembers the calls of a forward, and a rank without a sample makes the same with no rows.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._group: Any = None
        self.calls: list[_Call] = []
        self._remembers = False

    @contextmanager
    def active(self, *, remember: bool = False) -> Iterator[None]:
        """Inside, `gather` is of all ranks; with `remember` its calls are noted."""
        if remember:
            self.calls = []
        self._remembers = remember
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def gather(self, features: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The features of all ranks, and where this rank's begin. All ranks call it."""
        if not isinstance(features, torch.Tensor) or not features.dim():
            raise ConfigError("phalanx.gather takes a tensor with a row a sample. Give it features of shape (n, …)")
        if self._remembers:
            self.calls.append(_Call(tuple(features.shape[1:]), features.dtype, features.requires_grad))
        if self._world.size == 1:
            return features, 0
        if self._group is None:
            self._group = dist.new_group()  # all ranks take part, in the warm-up
        # All ranks take part, in this and in what follows.
        rows: list[int] = self._all(torch.tensor([len(features)], device=features.device))[:, 0].tolist()
        offset = sum(rows[: self._world.rank])
        gathered: torch.Tensor = _Gather.apply(features, self, rows, offset)
        return gathered, offset

    def replay(self, device: torch.device) -> torch.Tensor:
        """The calls of a forward for a rank without a sample; returns a zero whose backward takes part, too."""
        nothing = torch.zeros((), device=device)
        for call in self.calls:
            empty = torch.zeros(0, *call.shape, dtype=call.dtype, device=device, requires_grad=call.with_gradient)
            gathered, _ = self.gather(empty)
            if call.with_gradient:
                nothing = nothing + gathered[:0].sum().float()
        return nothing

    def concatenated(self, features: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """The rows of all ranks, each padded for the way."""
        padded = features.new_zeros(max(rows), *features.shape[1:])
        padded[: len(features)] = features
        return torch.cat([found[:count] for found, count in zip(self._all(padded), rows, strict=True)])

    def summed(self, gradient: torch.Tensor) -> torch.Tensor:
        """Over all ranks."""
        # All ranks take part: whoever called `gather` has its backward.
        dist.all_reduce(gradient, group=self._group)
        return gradient

    def _all(self, own: torch.Tensor) -> torch.Tensor:
        """This tensor of each rank, stacked."""
        found = own.new_empty(self._world.size, *own.shape)
        # All ranks take part, with tensors of one shape.
        dist.all_gather(list(found), own.contiguous(), group=self._group)
        return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, gatherer: Gatherer, rows: list[int], offset: int) -> torch.Tensor:
        ctx.gatherer, ctx.own = gatherer, slice(offset, offset + len(features))
        return gatherer.concatenated(features, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """What all ranks' losses ask of this rank's features: their sum."""
        return ctx.gatherer.summed(gradients[0].clone())[ctx.own], None, None, None


_CURRENT: ContextVar[Gatherer | None] = ContextVar("gatherer", default=None)


def take_part(device: torch.device) -> torch.Tensor | None:
    """The calls of `gather` for a rank without a sample, as a zero to add to its loss; None where there are none."""
    gatherer = _CURRENT.get()
    return gatherer.replay(device) if gatherer is not None and gatherer.calls else None
