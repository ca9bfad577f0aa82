"""A second parallel strategy: the trained parameters are one flat tensor, which is all that the optimizer knows of."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from phalanx.config.schema import ParallelConfig
from phalanx.exit.codes import ConfigError
from phalanx.train.distributed.world import World
from phalanx.train.loading.batch import Batch
from phalanx.train.optim.gradients import Gradients
from phalanx.train.parallel.loss_module import LossModule
from phalanx.train.parallel.strategy import ParallelStrategy, unused
from phalanx.train.tasks.task import Ratio

FLAT = "parallel._target_=tests.train.parallel.flat_strategy.Flat"


class OneGradient(Gradients):
    def __init__(self, flat: nn.Parameter) -> None:
        self.whole = torch.zeros_like(flat)
        self._flat = flat

    @property
    def exact(self) -> bool:
        return self.whole.dtype == torch.float64

    def norm(self) -> torch.Tensor:
        norm: torch.Tensor = torch.linalg.vector_norm(self.whole)
        return norm

    def divide(self, divisor: torch.Tensor) -> None:
        self.whole.div_(divisor)

    def zero(self) -> None:
        self.whole.zero_()
        self._flat.grad = self.whole


class Flat(ParallelStrategy):
    """The model's parameters are views of `flat`, and their gradients views of its gradient."""

    gradients: OneGradient

    def __init__(self, module: LossModule, world: World, config: ParallelConfig) -> None:
        self.module = module
        self._world = world
        self._trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.flat = nn.Parameter(torch.cat([p.detach().flatten() for _, p in self._trained]))
        world.broadcast_tensors([self.flat.data])  # all ranks take part
        self.gradients = OneGradient(self.flat)
        start = 0
        for _, parameter in self._trained:
            parameter.data = self.flat.data[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [("flat", self.flat)]

    def replicated_parameters(self) -> Mapping[str, torch.Tensor]:
        return {"flat": self.flat}

    def __call__(self, batch: Batch | None) -> Mapping[str, Ratio]:
        found: Mapping[str, Ratio] = self.module(batch)
        return found

    def after_warm_up(self) -> None:
        if bare := [name for name, p in self._trained if p.grad is None]:
            raise ConfigError(unused(bare))
        start = 0
        for _, parameter in self._trained:
            parameter.grad = self.gradients.whole[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        self.gradients.zero()

    def begin_step(self) -> None:
        pass

    def accumulate(self) -> AbstractContextManager[object]:
        return nullcontext()

    def before_last_backward(self) -> None:
        pass

    def reduce_gradients(self) -> None:
        if self._world.size > 1:
            dist.all_reduce(self.gradients.whole)  # all ranks take part
            self.gradients.whole.div_(self._world.size)

    def after_step(self, skipped: torch.Tensor) -> None:
        pass

    def full_weights(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_full_weights(self, weights: Mapping[str, Any]) -> None:
        self.model.load_state_dict(weights)

    def full_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return state

    def own_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return state
