"""How one model is spread over the ranks: DistributedDataParallel and its knobs."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from phalanx.config.schema import CommHook, ParallelConfig
from phalanx.exit import user_error
from phalanx.exit.codes import ConfigError

from ..distributed.world import World
from ..loading.batch import Batch, shapes
from ..optim.gradients import Gradients
from ..tasks.answer import checked
from ..tasks.task import Ratio, Task
from . import buffers

_MIB = 2**20
_EPS = 1e-8  # keeps a gradient of zeros, which has no directions, from becoming NaN


class LossModule(nn.Module):
    """Model and task as one module, so that DDP sees all of a forward, whatever the task does with the model."""

    def __init__(self, model: nn.Module, task: Task, *, find_unused: bool) -> None:
        """`find_unused`: some parameters take no part in some steps."""
        super().__init__()
        self.model = model
        self.task = task
        self._find_unused = find_unused

    def forward(self, batch: Batch | None) -> Mapping[str, Ratio]:
        """The task's ratios; for None, the share of a rank for which no sample is left, a loss with zero gradients."""
        if batch is None:
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            if self._find_unused:
                del parameters[1:]  # whether the others take part is for the ranks with samples to say
            nothing = torch.stack([_first(p).float() for p in parameters]).sum() * 0.0
            return {"loss": Ratio(nothing, 0)}
        try:
            return checked(self.task.ratios(self.model, batch), trains=True)
        except Exception as error:
            user_error.add_context(error, batch=shapes(batch))
            raise


def _first(parameter: torch.Tensor) -> torch.Tensor:
    real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
    return real.flatten()[:1].sum()


class DDPStrategy:
    """A replica on every rank, and the mean of their gradients: during the last backward of a step, or right after it.

    DistributedDataParallel sends each bucket as soon as backward has filled it, while a GPU computes on. On CPUs there is
    nothing to hide it behind, and what a small model pays for hooks and buckets is more than the sum itself: there the
    flat buffers of the gradients are added up when all are there, unless a knob of DDP's is set.
    """

    def __init__(self, replica: LossModule, world: World, config: ParallelConfig) -> None:
        self.replica = replica
        self._world = world
        self._broadcasts = world.size > 1 and config.broadcast_buffers
        self._ddp: DistributedDataParallel | None = None
        self._feedback: _PowerSGD | None = None
        if world.size > 1:
            _begin_alike(replica.model, world)
        if world.size > 1 and _needs_ddp(world, config):
            self._ddp = DistributedDataParallel(
                replica,
                device_ids=[world.device.index] if world.device.type == "cuda" else None,
                bucket_cap_mb=_bucket_mb(replica, world, config),
                gradient_as_bucket_view=True,
                static_graph=config.static_graph,
                find_unused_parameters=config.find_unused,
                init_sync=False,  # it cannot send complex numbers over gloo, nor fill expanded buffers
            )
            # Not by the constructor's argument: newer versions of torch call it otherwise and warn of the old name.
            self._ddp.broadcast_buffers = False
            self._feedback = _register(self._ddp, world, config)

    @property
    def wrapped(self) -> bool:
        return self._ddp is not None

    def __call__(self, batch: Batch | None) -> Mapping[str, Ratio]:
        module: Callable[..., Any] = self._ddp if self._ddp is not None else self.replica
        return cast(Mapping[str, Ratio], module(batch))

    def share_buffers(self) -> None:
        """With parallel.broadcast_buffers, before a step's forward: every rank takes rank 0's. All ranks call it."""
        if self._broadcasts:
            buffers.share(self.replica.model, self._world)

    def check_reduced(self) -> None:
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

    def average(self, gradients: Gradients) -> None:
        """After a step's last backward, where DDP has not done so: every rank's gradients become their mean.

        All ranks call it.
        """
        if self._ddp is not None or self._world.size == 1:
            return
        for flat in gradients.gathered():
            real = torch.view_as_real(flat) if flat.is_complex() else flat
            _make_mean(real.view(-1), self._world)

    def accumulating(self) -> AbstractContextManager[object]:
        """Within it, forward and backward leave the gradients unreduced."""
        return nullcontext() if self._ddp is None else self._ddp.no_sync()

    def after_step(self, skipped: torch.Tensor) -> None:
        """Keep a step whose gradient was not finite out of what a communication hook remembers."""
        if self._feedback is not None:
            self._feedback.forget_if(skipped)

    def state(self) -> dict[str, Any] | None:
        """What this rank's communication hook remembers, or None."""
        return None if self._feedback is None else self._feedback.state()

    def load(self, state: Mapping[str, Any]) -> None:
        if self._feedback is not None:
            self._feedback.load(state)

    def _without_gradient(self, message: str) -> list[str]:
        """Names behind the parameter indices that DDP's message lists."""
        names = [name for name, p in self.replica.model.named_parameters() if p.requires_grad]
        tail = message.rpartition("did not receive grad for rank")[2].partition(":")[2]
        indices = [int(word) for word in tail.split() if word.isdigit()]
        return [names[i] for i in indices if i < len(names)]


def _needs_ddp(world: World, config: ParallelConfig) -> bool:
    knobs = config.bucket_mb is not None or config.static_graph or config.find_unused
    return world.device.type != "cpu" or config.comm_hook is not CommHook.none or knobs


def _begin_alike(model: nn.Module, world: World) -> None:
    """Give every rank rank 0's weights and buffers, as models may draw from generators of their own. All ranks call it.

    Raises ConfigError where the ranks' models have other parameters.
    """
    shapes = [(name, tuple(p.shape), str(p.dtype), p.requires_grad) for name, p in model.named_parameters()]
    others = [set(found) ^ set(shapes) for found in world.gather(shapes)]
    if different := next((found for found in others if found), None):
        name, shape, dtype, trains = min(different)
        raise ConfigError(
            f"The ranks' models differ: {name} of shape {shape} and {dtype}, {'trained' if trains else 'frozen'}, is "
            "not the same on all. A model must not depend on the rank that builds it",
            agreed=True,
        )
    if any(names for names in buffers.unlike(dict(model.named_parameters()), world)):
        world.broadcast_tensors(contents := [buffers.content(p) for p in model.parameters() if p.numel()])
        with torch.no_grad():
            for parameter, content in zip((p for p in model.parameters() if p.numel()), contents, strict=True):
                parameter.copy_(content.view(parameter.dtype).view(parameter.shape))
    buffers.share(model, world)


def unused(names: list[str]) -> str:
    """The message for parameters that took no part in a step."""
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"No gradient reached {listed or 'some parameters'}: the loss does not depend on them in this step. Remove "
        "them, set requires_grad=False on them, or type parallel.find_unused=true if they take part in some steps only"
    )


def synchronised(model: nn.Module) -> nn.Module:
    """The model with every BatchNorm taking its statistics over all ranks."""
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def _bucket_mb(replica: LossModule, world: World, config: ParallelConfig) -> float:
    if config.bucket_mb is not None:
        if config.comm_hook is CommHook.powersgd and world.backend == "gloo":
            raise ConfigError(
                f"parallel.bucket_mb={config.bucket_mb} with parallel.comm_hook=powersgd needs NCCL: over gloo the "
                "ranks would mix the messages of several buckets up. Type parallel.bucket_mb=null, which makes one"
            )
        return config.bucket_mb
    if world.backend == "nccl":
        return 25.0
    size = sum(p.numel() * p.element_size() for p in replica.parameters() if p.requires_grad)
    return size / _MIB + 1.0


def _register(ddp: DistributedDataParallel, world: World, config: ParallelConfig) -> "_PowerSGD | None":
    if config.comm_hook is CommHook.none:
        if world.device.type == "cpu":
            ddp.register_comm_hook(world, _averaged)
        return None
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    if config.comm_hook is CommHook.powersgd:
        _check_matrices(ddp)
        state = powerSGD_hook.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=config.powersgd_rank,
            start_powerSGD_iter=config.powersgd_start,
            orthogonalization_epsilon=_EPS,
        )
        ddp.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
        return _PowerSGD(state)
    ddp.register_comm_hook(None, _bf16 if config.comm_hook is CommHook.bf16 else default_hooks.fp16_compress_hook)
    return None


def _make_mean(gradients: torch.Tensor, world: World) -> None:
    """Overwrite flat gradients with their mean over the ranks. All ranks call it."""
    torch.div(world.sum(gradients), world.size, out=gradients)


def _averaged(
    world: World,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """The mean over the ranks, added in their order: the same bits however the ranks are spread over machines."""
    gradients = bucket.buffer()
    _make_mean(gradients, world)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(gradients)
    return done


def _bf16(
    group: dist.ProcessGroup,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Torch's own hook, under a name that builds without CUDA do not refuse: gloo can do it, too."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

    return bf16_compress_hook(group, bucket)


def _check_matrices(ddp: DistributedDataParallel) -> None:
    for name, parameter in ddp.module.model.named_parameters():
        if parameter.requires_grad and (parameter.dim() == 0 or not parameter.is_contiguous()):
            raise ConfigError(
                f"parallel.comm_hook=powersgd cannot see {name} as a matrix: it is a single number or in channels-last "
                "order. Type train.channels_last=false, or parallel.comm_hook=bf16"
            )


class _PowerSGD:
    """What PowerSGD (Vogels et al. 2019) remembers of the last step: a rank's own error, and the factors."""

    _MEMORIES = ("error_dict", "p_memory_dict", "q_memory_dict")

    def __init__(self, state: Any) -> None:
        self._hook = state
        self._good: dict[str, dict[int, torch.Tensor]] = {}

    def forget_if(self, skipped: torch.Tensor) -> None:
        """Go back, on the device, to what was remembered before a skipped step."""
        for memory in self._MEMORIES:
            good = self._good.setdefault(memory, {})
            for bucket, tensor in getattr(self._hook, memory).items():
                if bucket not in good:
                    good[bucket] = torch.zeros_like(tensor) if memory == "error_dict" else _any_factor(tensor)
                tensor.copy_(torch.where(skipped.bool(), good[bucket], tensor))
                good[bucket].copy_(tensor)

    def state(self) -> dict[str, Any]:
        memories = {memory: dict(getattr(self._hook, memory)) for memory in self._MEMORIES}
        return {**memories, "iteration": self._hook.iter}

    def load(self, state: Mapping[str, Any]) -> None:
        for memory in self._MEMORIES:
            getattr(self._hook, memory).update(state[memory])
            self._good[memory] = {bucket: tensor.clone() for bucket, tensor in state[memory].items()}
        self._hook.iter = state["iteration"]


def _any_factor(like: torch.Tensor) -> torch.Tensor:
    """Where PowerSGD begins anew, the same on every rank: it needs columns that are independent, and no more."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
