"""Set up the process of a rank: threads, precision, determinism."""

import os

import torch

from phalanx.config.schema import Auto, Config
from phalanx.system import cpu_count

from ...distributed.world import World
from ...optim.precision import Precision, choose, set_up
from .deferred_dynamo import defer_dynamo


def set_up_process(config: Config, world: World) -> Precision:
    """Set threads, precision (one that all GPUs support) and determinism of this rank. All ranks call it."""
    # All ranks take part, in this and what follows.
    capabilities = world.gather(world.raise_on_all(lambda: _capability(world.device)))
    oldest = min((found for found in capabilities if found is not None), default=None)
    return world.raise_on_all(lambda: _set_up(config, world, oldest))


def _capability(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of a rank's GPU, None for a CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def _set_up(config: Config, world: World, oldest: tuple[int, int] | None) -> Precision:
    threads = config.train.threads
    if isinstance(threads, Auto):
        threads = cpu_count.threads(os.environ, world.rank_env.local_size)
    torch.set_num_threads(threads)
    if not config.train.compile:
        defer_dynamo()
    precision = choose(config.train.precision, oldest)
    set_up(precision, config.train.deterministic)
    return precision
