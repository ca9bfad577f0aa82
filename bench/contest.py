"""What bench/step.py compares: the trainer and a bare loop, each step of theirs timed, in turns that somebody gives."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

from phalanx.compose.compose import compose
from phalanx.config.schema import Config
from phalanx.exit.rank_env import RankEnv
from phalanx.exit.signals import Signals
from phalanx.targets.instantiate import Targets
from phalanx.train.distributed.rendezvous import join
from phalanx.train.distributed.world import World
from phalanx.train.engine import trainer
from phalanx.train.engine.parts.build import Parts, build
from phalanx.train.engine.parts.config_targets import targets
from phalanx.train.loading.loader import Loader, StepBatch
from phalanx.train.optim.precision import Precision

Turns = Iterator[list[float]]  # lists to put the seconds of each step into; the next is given when it is one's turn


@dataclass(frozen=True)
class InTurns(Loader):
    """The trainer's own loader, which waits for its turn before every so many steps, and times them."""

    turns: Turns
    steps: int

    def from_step(self, first: int) -> Iterator[StepBatch]:
        works = super().from_step(first)
        times: list[float] = []
        for step in range(first, self.timeline.steps):
            if step % self.steps == 0:
                times = next(self.turns, times)
            begin = time.perf_counter()
            yield next(works)
            times.append(time.perf_counter() - begin)  # fetching, step, and what is due after it


def train(words: Sequence[str], turns: Turns, steps: int) -> None:
    """The whole job: logging, progress lines and all."""
    rank_env = RankEnv.from_environment(os.environ)
    composed = compose(words)
    world = join(rank_env, composed.config.world, deterministic=False)

    def build_in_turns(config: Config, builder: Targets, world: World, precision: Precision) -> Parts:
        parts = build(config, builder, world, precision)
        own = {entry.name: getattr(parts.loader, entry.name) for entry in dataclasses.fields(Loader)}
        return dataclasses.replace(parts, loader=InTurns(**own, turns=turns, steps=steps))

    vars(trainer)["build"] = build_in_turns
    signals = Signals(rank_env.rank, lambda _: os._exit(1))
    signals.open()
    trainer.run(composed, world, signals, time.time(), [])
    world.leave()


def loop(words: Sequence[str], turns: Turns, steps: int, *, plain: bool) -> None:
    """What one writes by hand: DataLoader, DistributedSampler, DDP, Adam, and the loss read for the progress line."""
    config = compose(words).config
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    builder = targets(config, False)
    model = builder.build(config.model, "model", nn.Module)
    dataset = _one_by_one(builder.build(config.data.train, "data.train", Dataset))
    if not plain:
        dist.init_process_group("gloo")  # all ranks take part
        model = DistributedDataParallel(model)
    sampler: DistributedSampler[object] = DistributedSampler(dataset, size, rank)
    loader = DataLoader(dataset, config.train.global_batch // size, sampler=sampler, drop_last=True)
    taken = _steps(model, loader, sampler)
    for times in turns:
        for _ in range(steps):
            begin = time.perf_counter()
            next(taken)
            times.append(time.perf_counter() - begin)
    if not plain:
        dist.destroy_process_group()  # all ranks take part


def _one_by_one(dataset: "Dataset[object]") -> "Dataset[object]":
    """Images in memory as a loop by hand has them; other data sets as they are."""
    if not hasattr(dataset, "__getitems__"):
        return dataset
    every: tuple[torch.Tensor, ...] = dataset.__getitems__(torch.arange(len(dataset)).numpy())  # type: ignore[arg-type]
    return TensorDataset(*every)


def _steps(model: nn.Module, loader: "DataLoader[object]", sampler: "DistributedSampler[object]") -> Iterator[None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            yield
        epoch += 1
