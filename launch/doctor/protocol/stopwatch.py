"""Times work on a GPU with CUDA events."""

from collections.abc import Callable
from typing import Any

import torch


def mean_seconds(where: torch.device, work: Callable[[], object], repeats: int) -> float:
    """The mean time of `work` on the GPU `where`, once it has been done before."""
    cuda: Any = torch.cuda  # its events are untyped
    with cuda.device(where):
        for _ in range(3):  # kernels are chosen and loaded, and clocks rise
            work()
        began, ended = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        began.record()
        for _ in range(repeats):
            work()
        ended.record()
        cuda.synchronize(where)
    return float(began.elapsed_time(ended)) / 1000 / repeats
