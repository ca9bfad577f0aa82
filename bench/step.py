"""Time of a step: this trainer, logging and all, against a bare hand-written DDP loop, in turn within one run.

    torchrun --nproc_per_node=2 bench/step.py model=convnet
    torchrun --nproc_per_node=1 bench/step.py model=mlp

Both train the same model on the same images in memory, 64 a rank, one thread a rank, without augmentation. They take
turns of a few dozen steps, so that whatever else the machine does meets both. Prints medians and their ratio.
"""

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from train import build, job
from train.compose import compose
from train.config import Config
from train.data.digits import Digits
from train.data.loader import Loader, Work
from train.hearing import Signals
from train.join import join
from train.place import Place
from train.precision import Precision
from train.target import Targets
from train.world import World

_BATCH = 64  # a rank
_TURN = 25  # steps before the other one goes on
_TURNS = 24
_WARM_TURNS = 2  # not counted


@dataclass
class Times:
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class InTurns(Loader):
    """The trainer's own loader, which lets the bare loop go on for a while before every so many steps, and times both."""

    times: Times
    bare: Iterator[None]

    def from_step(self, first: int) -> Iterator[Work]:
        works = super().from_step(first)
        for step in range(first, self.timeline.steps):
            if step % _TURN == 0:
                self.times.bare += [_timed(self.bare) for _ in range(_TURN)]
            begin = time.perf_counter()
            yield next(works)
            self.times.ours.append(time.perf_counter() - begin)  # fetching, step, and what is due after it


def bare_loop(config: Config, world: World) -> Iterator[None]:
    """What one writes by hand: DataLoader, DistributedSampler, DDP, Adam, and the loss read for the progress line."""
    torch.manual_seed(config.seed)
    model = build.targets(config, False).build(config.model, "model", torch.nn.Module)
    parallel = DistributedDataParallel(model)
    digits = Digits("train")
    dataset = TensorDataset(*digits.__getitems__(torch.arange(len(digits)).numpy()))
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(dataset, world.size, world.rank)
    loader = DataLoader(dataset, batch_size=_BATCH, sampler=sampler, drop_last=True)
    optimizer = torch.optim.Adam(parallel.parameters(), lr=1e-3)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(parallel(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            yield
        epoch += 1


def _timed(steps: Iterator[None]) -> float:
    begin = time.perf_counter()
    next(steps)
    return time.perf_counter() - begin


def main() -> None:
    place = Place.from_environment(os.environ)
    times = Times()
    with tempfile.TemporaryDirectory() as root:
        fixed = [f"train.global_batch={_BATCH * place.size}", f"train.steps={_TURN * _TURNS}", "train.threads=1"]
        off = ["data.augment=null", "eval.every=null", "checkpoint.every=null", f"run.root={root}", "run.name=bench"]
        composed = compose([*fixed, *off, *sys.argv[1:]])
        assert composed is not None
        world = join(place, composed.config.world, deterministic=False)

        def build_in_turns(config: Config, builder: Targets, world: World, precision: Precision) -> build.Parts:
            parts = build.build(config, builder, world, precision)
            own = {entry.name: getattr(parts.loader, entry.name) for entry in dataclasses.fields(Loader)}
            return dataclasses.replace(parts, loader=InTurns(**own, times=times, bare=bare_loop(config, world)))

        vars(job)["build"] = build_in_turns
        sys.stdout, console = open(os.devnull, "w"), sys.stdout  # noqa: SIM115 - the progress lines are written, not shown
        signals = Signals(place.rank, lambda _: os._exit(1))
        signals.open()
        job.run(composed, world, signals, time.time(), [])
        sys.stdout = console
        if world.leads:
            _report(times, place.size, composed.config)
        world.leave()


def _report(times: Times, ranks: int, config: Config) -> None:
    skip = _TURN * _WARM_TURNS
    ours, bare = (statistics.median(taken[skip:]) * 1e3 for taken in (times.ours, times.bare))
    ours_mean, bare_mean = (statistics.fmean(taken[skip:]) * 1e3 for taken in (times.ours, times.bare))
    print(f"{config.model['_target_']} on {ranks} ranks, batch {_BATCH} a rank, {len(times.ours) - skip} steps each")
    print(f"  bare loop     median {bare:7.3f} ms  mean {bare_mean:7.3f} ms")
    print(f"  this trainer  median {ours:7.3f} ms  mean {ours_mean:7.3f} ms")
    print(f"  ratio         median {ours / bare:7.3f}     mean {ours_mean / bare_mean:7.3f}")


if __name__ == "__main__":
    main()
