"""Communication hooks of DistributedDataParallel: mean in rank order, bf16, fp16, PowerSGD."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from phalanx.config.schema import CommHook, ParallelConfig
from phalanx.exit.codes import ConfigError

from ..distributed.world import World

_EPS = 1e-8  # avoids NaN for a gradient of zeros, which cannot be orthogonalised


def register(ddp: DistributedDataParallel, world: World, config: ParallelConfig) -> "PowerSGD | None":
    """Register the hook that `config` names. Returns its state, None if it has none."""
    if config.comm_hook is CommHook.none:
        if world.device.type == "cpu":
            ddp.register_comm_hook(world, _average_bucket)
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
        return PowerSGD(state)
    ddp.register_comm_hook(None, _bf16 if config.comm_hook is CommHook.bf16 else default_hooks.fp16_compress_hook)
    return None


def all_reduce_mean(gradients: torch.Tensor, world: World) -> None:
    """Overwrite flat gradients, shape (numbers,), with their mean over the ranks. All ranks call it."""
    # All ranks take part, added in their order.
    torch.div(world.sum(gradients), world.size, out=gradients)


def _average_bucket(
    world: World,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """The mean over the ranks, added in their order: the same bits however the ranks are spread over machines."""
    gradients = bucket.buffer()
    all_reduce_mean(gradients, world)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(gradients)
    return done


def _bf16(
    group: dist.ProcessGroup,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """torch's bf16 hook, under another name, since torch refuses it by name without NCCL; gloo supports bf16, too."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

    return bf16_compress_hook(group, bucket)


def _check_matrices(ddp: DistributedDataParallel) -> None:
    for name, parameter in ddp.module.model.named_parameters():
        if parameter.requires_grad and (parameter.dim() == 0 or not parameter.is_contiguous()):
            raise ConfigError(
                f"parallel.comm_hook=powersgd cannot see {name} as a matrix: it is a single number or in channels-last "
                "order. Type train.channels_last=false, or parallel.comm_hook=bf16"
            )


class PowerSGD:
    """State of PowerSGD (Vogels et al. 2019): this rank's error feedback, and the factors P and Q."""

    _MEMORIES = ("error_dict", "p_memory_dict", "q_memory_dict")

    def __init__(self, state: Any) -> None:
        self._hook = state
        self._good: dict[str, dict[int, torch.Tensor]] = {}

    def forget_if(self, skipped: torch.Tensor) -> None:
        """Restore, on the device, the state before a skipped step."""
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
    """An initial factor, the same on every rank: any with independent columns will do."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
