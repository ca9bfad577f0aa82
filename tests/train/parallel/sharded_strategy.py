"""A third parallel strategy: torch's FSDP2. Each rank holds a shard of every parameter, gradient and optimizer state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils._pytree import tree_map_only

from phalanx.config.schema import ParallelConfig
from phalanx.exit.codes import ConfigError
from phalanx.parallel import Gradients, LossModule, ParallelStrategy, broadcast_model
from phalanx.train.distributed.world import World
from phalanx.train.loading.batch import Batch
from phalanx.train.parallel.strategy import unused
from phalanx.train.tasks.task import Ratio

SHARDED = "parallel._target_=tests.train.parallel.sharded_strategy.Sharded"


class ShardedGradients(Gradients):
    def __init__(self, parameters: Sequence[nn.Parameter], world: World) -> None:
        self._parameters = parameters
        self._world = world

    @property
    def exact(self) -> bool:
        return any(parameter.dtype == torch.float64 for parameter in self._parameters)

    def norm(self) -> torch.Tensor:
        shards = [cast(DTensor, p.grad).to_local().double() for p in self._parameters]
        squares = torch.stack([shard.square().sum() for shard in shards]).sum()
        return self._world.sum(squares).sqrt()  # all ranks take part

    def divide(self, divisor: torch.Tensor) -> None:
        for parameter in self._parameters:
            cast(DTensor, parameter.grad).to_local().div_(divisor)

    def zero(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


class Sharded(ParallelStrategy):
    """`fully_shard` over the whole model. Needs CPUs, and torchrun for one rank, too."""

    collective_forward = True

    def __init__(self, module: LossModule, world: World, config: ParallelConfig, *, own_group: bool = True) -> None:
        """Without `own_group` it communicates where a task would."""
        broadcast_model(module.model, world)  # all ranks take part, in this and what follows
        self.module = module
        group = dist.new_group() if own_group else dist.group.WORLD
        self._mesh = DeviceMesh.from_group(cast(dist.ProcessGroup, group), "cpu")
        self._fsdp: FSDPModule = fully_shard(module.model, mesh=self._mesh, reshard_after_forward=True)
        cast(Any, self.model).without_sample = lambda: module(None)["loss"].total
        register_fsdp_forward_method(self.model, "without_sample")
        self._trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.gradients = ShardedGradients([p for _, p in self._trained], world)

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.model.named_parameters())

    def replicated_parameters(self) -> Mapping[str, torch.Tensor]:
        return {}

    def graph_parameters(self) -> Mapping[str, torch.Tensor]:
        self._fsdp.unshard()  # all ranks take part
        whole = dict(self.model.named_parameters())  # the same objects each time
        self._fsdp.reshard()
        return whole

    def __call__(self, batch: Batch | None) -> Mapping[str, Ratio]:
        """All ranks take part: they gather the weights."""
        if batch is None:
            return {"loss": Ratio(cast(Any, self.model).without_sample(), 0)}
        found: Mapping[str, Ratio] = self.module(batch)
        return found

    def after_warm_up(self) -> None:
        self.reduce_gradients()
        self.gradients.zero()

    def begin_step(self) -> None:
        pass

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        self._fsdp.set_requires_gradient_sync(False)
        yield
        self._fsdp.set_requires_gradient_sync(True)

    def before_last_backward(self) -> None:
        pass

    def reduce_gradients(self) -> None:
        """The backward did it."""
        if bare := [name for name, p in self._trained if p.grad is None]:
            raise ConfigError(unused(bare))

    def after_step(self, skipped: torch.Tensor) -> None:
        pass

    def full_weights(self) -> dict[str, Any]:
        return cast(dict[str, Any], _whole(self.model.state_dict()))  # all ranks take part

    def load_full_weights(self, weights: Mapping[str, Any]) -> None:
        sharded = {name for name, value in self.model.state_dict().items() if isinstance(value, DTensor)}
        self.model.load_state_dict({n: self._own(value) if n in sharded else value for n, value in weights.items()})

    def full_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], _whole(state))  # all ranks take part

    def own_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Each tensor that is no single number is of a parameter's shape."""
        return cast(Mapping[str, Any], tree_map_only(torch.Tensor, lambda t: self._own(t) if t.dim() else t, state))

    def _own(self, whole: torch.Tensor) -> DTensor:
        """This rank's part; nothing is sent, as every rank has read the whole."""
        return distribute_tensor(whole, self._mesh, [Shard(0)], src_data_rank=None)


def _whole(state: Any) -> Any:
    """With every shard gathered. All ranks call it."""
    return tree_map_only(DTensor, lambda shard: shard.full_tensor(), state)
