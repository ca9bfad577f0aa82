"""Data parallelism: a replica on every rank, by DistributedDataParallel or flat buffers."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from phalanx.config.schema import CommHook, ParallelConfig
from phalanx.exit.codes import ConfigError

from ..distributed.world import World
from ..loading.batch import Batch
from ..optim.gradients import FlatGradients
from ..optim.sparse_gradients import is_table
from ..tasks.task import Ratio
from . import buffers
from .broadcast_model import broadcast_model
from .comm_hooks import PowerSGD, all_reduce_mean, register
from .gather_rows import gather_rows
from .loss_module import LossModule
from .strategy import ParallelStrategy, unused

_MIB = 2**20


class DDPStrategy(ParallelStrategy):
    """A replica on every rank, and the mean of their gradients: during the last backward of a step, or right after it.

    DistributedDataParallel reduces each bucket as soon as backward has filled it, overlapped with computation on a GPU. On
    CPUs nothing overlaps, and for a small model hooks and buckets cost more than the reduction: there the flat gradient
    buffers are reduced after the backward, unless an option of DDP is set.
    """

    sparse_gradients = True
    options = frozenset(option.name for option in fields(ParallelConfig)) - {"_target_", "args"}

    def __init__(self, module: LossModule, world: World, config: ParallelConfig) -> None:
        if config.sync_batchnorm:
            _sync_batchnorm(module, world)
        self.module = module
        self.gradients: FlatGradients = FlatGradients(self._trained(), find_unused=config.find_unused)
        self._world = world
        self._config = config
        self._find_unused = config.find_unused
        self._broadcasts = world.size > 1 and config.broadcast_buffers
        self._ddp: DistributedDataParallel | None = None
        self._feedback: PowerSGD | None = None
        self._trains: list[tuple[nn.Parameter, bool]] = []
        broadcast_model(module.model, world)  # all ranks take part
        self._wrap()  # all ranks take part

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _wrap(self) -> None:
        """Make DDP, where it is needed, of the parameters that train now. All ranks call it."""
        world, config = self._world, self._config
        tables = [f"model.{name}" for name, p in self.model.named_parameters() if is_table(p)]
        dense = any(not is_table(parameter) for parameter in self._trained())
        if world.size == 1 or not dense or not _needs_ddp(world, config):
            return
        # A bucket holds dense gradients: those of tables are gathered apart.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.module, tables)  # type: ignore[no-untyped-call]
        self._ddp = DistributedDataParallel(
            self.module,
            device_ids=[world.device.index] if world.device.type == "cuda" else None,
            bucket_cap_mb=_bucket_mb(self.module, world, config),
            gradient_as_bucket_view=True,
            static_graph=config.static_graph,
            find_unused_parameters=config.find_unused,
            init_sync=False,  # it cannot send complex numbers over gloo, nor fill expanded buffers
        )
        # Not by the constructor's argument: newer versions of torch call it otherwise and warn of the old name.
        self._ddp.broadcast_buffers = False
        self._feedback = register(self._ddp, world, config)

    def retrain(self, names: Sequence[str]) -> None:
        """DDP is made anew: its buckets hold exactly what trains, as if the process had begun so."""
        self._unwrap()
        trains = set(names)
        self._trains = [(parameter, name in trains) for name, parameter in self.model.named_parameters()]
        self.begin_phase()
        self.gradients.retrain(self._trained())
        self._wrap()  # all ranks take part

    def phase(self, names: Sequence[str]) -> "DDPStrategy":
        """With a DDP of its own, whose hooks and buckets are those of the phase's parameters."""
        self._unwrap()
        found = copy.copy(self)
        found.gradients = FlatGradients([], find_unused=self._find_unused)
        found.retrain(names)  # all ranks take part
        return found

    def begin_phase(self) -> None:
        for parameter, trains in self._trains:
            parameter.requires_grad_(trains)

    def _unwrap(self) -> None:
        if self._ddp is not None:
            self._ddp._remove_autograd_hooks()  # type: ignore[no-untyped-call]
            self._ddp = None

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.model.named_parameters())

    def replicated_parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def __call__(self, batch: Batch | None) -> Mapping[str, Ratio]:
        forward: Callable[..., Any] = self._ddp if self._ddp is not None else self.module
        return cast(Mapping[str, Ratio], forward(batch))

    def after_warm_up(self) -> None:
        bare = [name for name, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if bare and not self._find_unused:
            raise ConfigError(unused(bare))
        self._check_reduced()
        self.gradients.begin(wrapped=self._ddp is not None)

    def begin_step(self) -> None:
        """With parallel.broadcast_buffers every rank takes rank 0's buffers."""
        if self._broadcasts:
            buffers.broadcast_buffers(self.model, self._world)

    def accumulate(self) -> AbstractContextManager[object]:
        return nullcontext() if self._ddp is None else self._ddp.no_sync()

    def before_last_backward(self) -> None:
        self.gradients.expect()

    def reduce_gradients(self) -> None:
        if sparse := self.gradients.sparse.tables:
            rows = gather_rows(self.gradients.sparse.own(), sparse, self._world)  # all ranks take part
            self.gradients.sparse.combine(rows, self._world.size)
        if self._ddp is not None:
            self._check_reduced()
            return
        if missing := self.gradients.missing():
            lost = set(map(id, missing))
            raise ConfigError(unused([name for name, p in self.model.named_parameters() if id(p) in lost]))
        if self._world.size == 1:
            return
        for flat in self.gradients.gathered():
            real = torch.view_as_real(flat) if flat.is_complex() else flat
            all_reduce_mean(real.view(-1), self._world)  # all ranks take part, buffer after buffer in one order

    def after_step(self, skipped: torch.Tensor) -> None:
        """Restore the communication hook's state after a step whose gradient was not finite."""
        if self._feedback is not None:
            self._feedback.forget_if(skipped)

    def state(self) -> dict[str, Any] | None:
        """The state of this rank's communication hook, or None."""
        return None if self._feedback is None else self._feedback.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        if self._feedback is not None:
            self._feedback.load(state)

    def full_weights(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_full_weights(self, weights: Mapping[str, Any]) -> None:
        self.model.load_state_dict(weights)

    def full_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return state

    def own_optimizer_state(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        return state

    def _check_reduced(self) -> None:
        """After a step's last backward. Raises ConfigError naming the parameters that no gradient reached on this rank.

        DDP would say so in the next forward. By then this rank may be in another collective, while the others still
        wait for its gradients: nobody could tell them.
        """
        if self._ddp is None:
            return
        try:
            self._ddp.reducer._rebuild_buckets()  # which it does after the very first backward only, and checks first
        except RuntimeError as error:
            if "Expected to have finished reduction" not in str(error):
                raise
            raise ConfigError(unused(self._without_gradient(str(error)))) from None

    def _without_gradient(self, message: str) -> list[str]:
        """Names behind the parameter indices that DDP's message lists."""
        names = [name for name, p in self.model.named_parameters() if p.requires_grad and not is_table(p)]
        tail = message.rpartition("did not receive grad for rank")[2].partition(":")[2]
        indices = [int(word) for word in tail.split() if word.isdigit()]
        return [names[i] for i in indices if i < len(names)]


def _needs_ddp(world: World, config: ParallelConfig) -> bool:
    knobs = config.bucket_mb is not None or config.static_graph or config.find_unused
    return world.device.type != "cpu" or config.comm_hook is not CommHook.none or knobs


def _sync_batchnorm(module: LossModule, world: World) -> None:
    """Let every BatchNorm of the model take its statistics over all ranks. Raises ConfigError, on all ranks alike."""
    if world.device.type != "cuda":
        raise ConfigError("parallel.sync_batchnorm=true needs GPUs. Type parallel.sync_batchnorm=false", agreed=True)
    module.model = nn.SyncBatchNorm.convert_sync_batchnorm(module.model)  # type: ignore[no-untyped-call]


def _bucket_mb(module: LossModule, world: World, config: ParallelConfig) -> float:
    if config.bucket_mb is not None:
        if config.comm_hook is CommHook.powersgd and world.backend == "gloo":
            raise ConfigError(
                f"parallel.bucket_mb={config.bucket_mb} with parallel.comm_hook=powersgd needs NCCL: over gloo the "
                "ranks would mix the messages of several buckets up. Type parallel.bucket_mb=null, which makes one"
            )
        return config.bucket_mb
    if world.backend == "nccl":
        return 25.0
    size = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return size / _MIB + 1.0
