"""Streams, and what trains on them. Apart, because workers import it."""

import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import IterableDataset, get_worker_info

from phalanx import Augment, Ratio, Task


def sample(number: int) -> dict[str, Any]:
    draw = np.random.default_rng(number)
    return {"x": torch.from_numpy(draw.normal(size=4)), "number": number}


class Counting:
    """No more than an iterable: `samples` samples one after the other, with noise from the global generators."""

    def __init__(self, samples: int, noise: bool = False) -> None:
        self._samples = samples
        self._noise = noise

    def __iter__(self) -> Iterator[Any]:
        for number in range(self._samples):
            found = sample(number)
            if self._noise:
                found["x"] = found["x"] + torch.randn(4) + np.random.randn() + random.random()
            yield found


class Remembering(Counting):
    """Each pass comes in another order, by a number of passes that it counts itself."""

    def __init__(self, samples: int) -> None:
        super().__init__(samples)
        self._passes = 0

    def __iter__(self) -> Iterator[Any]:
        self._passes += 1
        yield from map(sample, np.random.default_rng(self._passes).permutation(self._samples).tolist())


class Shuffling(Counting):
    """The order of a pass is decided by its number."""

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        yield from map(sample, np.random.default_rng(self._epoch).permutation(self._samples).tolist())


class Stateful(IterableDataset[Any]):
    """Has a state, and gives a part of itself. Reading from the beginning after a restart would be an error."""

    def __init__(self, samples: int, part: int = 0, parts: int = 1, forgets: bool = False) -> None:
        self._samples, self._part, self._parts, self._forgets = samples, part, parts, forgets
        self._next = part

    def shard(self, num_shards: int, index: int) -> "Stateful":
        return Stateful(self._samples, index, num_shards, self._forgets)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next + self._forgets * self._parts, "tensor": torch.ones(2), "array": np.ones(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert isinstance(state["array"], np.ndarray)
        assert state["tensor"].tolist() == [1, 1]
        self._next = state["next"]

    def __iter__(self) -> Iterator[Any]:
        while self._next < self._samples:
            number, self._next = self._next, self._next + self._parts
            yield sample(number)
        self._next = self._part


class Sized(Stateful):
    def __len__(self) -> int:
        return self._samples


class Sharded(IterableDataset[Any]):
    """Cut into shards of consecutive samples, of which the second has none. Notes which rank made which sample."""

    def __init__(self, samples: int, num_shards: int, notes: str | None = None, shards: Any = None) -> None:
        self.num_shards, self._samples, self._notes = num_shards, samples, notes
        self._shards = list(range(num_shards)) if shards is None else shards

    def shard(self, num_shards: int, index: int) -> "Sharded":
        return type(self)(self._samples, self.num_shards, self._notes, self._shards[index::num_shards])

    def _numbers(self, shard: int) -> range:
        full, place = self.num_shards - 1, shard - (shard > 1)
        return range(self._samples * place // full, self._samples * (place + 1) // full) if shard != 1 else range(0)

    def __iter__(self) -> Iterator[Any]:
        for number in (number for shard in self._shards for number in self._numbers(shard)):
            if self._notes is not None:
                with open(self._notes, "a") as file:
                    file.write(f"{os.environ['RANK']} {number}\n")
            yield sample(number)


class Even(Sharded):
    """All shards have as many samples."""

    def _numbers(self, shard: int) -> range:
        return range(self._samples * shard // self.num_shards, self._samples * (shard + 1) // self.num_shards)


class Unsplit(Counting):
    """Says that it has shards, and does not give them out."""

    def __init__(self, samples: int, num_shards: int) -> None:
        super().__init__(samples)
        self.num_shards = num_shards


class ByWorker(IterableDataset[Any]):
    """Takes its part by torch's data worker."""

    def __init__(self, samples: int, num_shards: int) -> None:
        self.num_shards, self._samples = num_shards, samples

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        part, parts = (0, 1) if info is None else (info.id, info.num_workers)
        yield from map(sample, range(part, self._samples, parts))


class ByRank(IterableDataset[Any]):
    """Splits itself: rank r has r samples more than rank 0."""

    def __init__(self, samples: int) -> None:
        there = dist.is_initialized()
        self._rank, self._samples = (dist.get_rank() if there else 0), samples

    def __iter__(self) -> Iterator[Any]:
        yield from (sample(1000 * self._rank + i) for i in range(self._samples + self._rank))


class Striped(ByRank):
    """Splits itself: what the first rank has depends on the number of ranks."""

    def __init__(self, samples: int) -> None:
        super().__init__(samples)
        self._ranks = dist.get_world_size() if dist.is_initialized() else 1

    def __iter__(self) -> Iterator[Any]:
        return map(sample, range(self._rank, self._samples, self._ranks))


class Two(ByRank):
    """Has a part for the first two ranks alone."""

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if self._rank < 2 else iter(())


class Noise(Augment):
    def __call__(self, batch: Any, draws: Any) -> Any:
        return {**batch, "x": batch["x"] + draws.uniform(4)}


class Partners(Augment):
    def __call__(self, batch: Any, draws: Any, partners: Any = None) -> Any:
        return batch


def columns(samples: Any) -> Any:
    return {"x": torch.stack([each["x"] for each in samples]), "number": [each["number"] for each in samples]}


class Line(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 1)


class Numbers(Task):
    """A regression of the samples' numbers, which also gives their mean and how many samples there were."""

    def ratios(self, model: nn.Module, batch: Any) -> Mapping[str, Ratio]:
        numbers = torch.as_tensor(batch["number"]).double()
        loss = (model(batch["x"]).squeeze(1) - numbers / 10).square().sum()
        return {"loss": Ratio(loss, len(numbers)), "number": Ratio(numbers.sum(), len(numbers))}
