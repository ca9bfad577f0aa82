"""The parts of a run inside the test's own process, as a world of one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from phalanx.compose.compose import compose
from phalanx.config.schema import Config
from phalanx.exit.rank_env import RankEnv
from phalanx.train.checkpoint.preserve import unchanged
from phalanx.train.distributed.rendezvous import join
from phalanx.train.distributed.world import World
from phalanx.train.engine.parts.build import Parts, build
from phalanx.train.engine.parts.config_targets import targets
from phalanx.train.engine.parts.process_setup import set_up_process
from phalanx.train.loading.batch import apply
from phalanx.train.loading.loader import StepBatch
from phalanx.train.loading.prefetch import ToDevice


def built(overrides: Sequence[str]) -> tuple[Config, World, Parts]:
    """The parts that a config asks for, warmed up by nothing yet."""
    return built_of(compose([*overrides, "train.threads=1", "wandb.mode=disabled"]).config)


def built_of(config: Config) -> tuple[Config, World, Parts]:
    world = join(RankEnv.from_environment({}), config.world, config.train.deterministic)
    world.watchdog.close()  # pytest's process goes on to other things
    precision = set_up_process(config, world)
    return config, world, build(config, targets(config, foreign=False), world, precision)


def moved(work: StepBatch, mover: ToDevice) -> StepBatch:
    return replace(work, micro_batches=[(position, apply(batch, mover)) for position, batch in work.micro_batches])


def warmed_up(parts: Parts) -> list[str]:
    """The names of the metrics, after the uncounted backward."""
    whole = replace(parts.sample_batch, batch=apply(parts.sample_batch.batch, parts.mover))
    with unchanged(parts.state.model, parts.task):
        names, _ = parts.step.warm_up(whole)
    return names


@contextmanager
def kept_switches() -> Iterator[None]:
    """Put torch's switches back."""
    threads = torch.get_num_threads()
    before = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:3]
    torch.use_deterministic_algorithms(before[3])
