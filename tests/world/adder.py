"""A rank that adds tensors up with the others and prints what came out: python -m tests.world.adder DTYPE:NUMBERS …"""

import hashlib
import os
import sys

import numpy as np
import torch

from train.config import Backend, Device, WorldConfig
from train.join import join
from train.place import Place


def drawn(rank: int, dtype: str, numbers: int) -> torch.Tensor:
    """What `rank` brings: numbers of very different sizes, whose sum depends on the order."""
    generator = np.random.default_rng(rank)
    values = generator.standard_normal(numbers) * 10.0 ** generator.integers(-3, 4, numbers)
    tensor: torch.Tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    return tensor


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    world = join(
        Place.from_environment(os.environ), WorldConfig(device=Device.cpu, backend=Backend.gloo, timeout_s=30), False
    )
    world.share_memory(timeout_s=30)
    print("through gloo" if world.exchange is None else "through memory", flush=True)
    for asked in sys.argv[1:]:
        dtype, _, numbers = asked.partition(":")
        tensor = drawn(world.rank, dtype, int(numbers))
        print(digest(world.sum(tensor)), flush=True)
    world.leave()


if __name__ == "__main__":
    main()
