"""A task that harms its own rank at a chosen moment, as the environment variable SABOTAGE says."""

import ctypes
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phalanx.train.data.digits import Digits
from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio

TASK = "task._target_=tests.train.distributed.fault_injection.Sabotaged"
FULL_AT_BYTES = 100_000
CHECKED = 4  # forwards in eval mode before training: three for a loss that may be a mean, one of the evaluation's


@dataclass(frozen=True)
class Sabotage:
    """On `rank`, at the `after`-th time that `moment` comes, do `act`; the time goes into the file `mark` first.

    Moments: build, step (the first is the uncounted one), evaluate; and just before the file system changes within a
    checkpoint: write, commit, delete, empty.
    """

    rank: int
    moment: str
    act: str
    after: int = 0
    mark: str = ""

    def environ(self) -> dict[str, str]:
        return {"SABOTAGE": json.dumps(asdict(self))}


class Sabotaged(Classification):
    def __init__(self, classes: int, label_smoothing: float) -> None:
        super().__init__(classes, label_smoothing)
        self._plan = Sabotage(**json.loads(os.environ.get("SABOTAGE", _NONE)))
        self._seen = 0
        self._looked = itertools.count()  # goes on where a sanity check leaves no trace
        if self._plan.rank == int(os.environ.get("RANK", "0")):
            sys.addaudithook(self._audit)
            self._reach("build")

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        if self._plan.rank == int(os.environ.get("RANK", "0")):
            if model.training:
                self._reach("step")
            elif next(self._looked) >= CHECKED:
                self._reach("evaluate")
        return super().ratios(model, batch)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = str(arguments[0]) if arguments else ""
        if "/checkpoints/" not in path:
            return
        if event in ("open", "os.mkdir") and ".staging" in path:
            self._reach("write")
        elif event == "os.rename" and path.endswith(".staging"):
            self._reach("commit")
        elif event == "os.rename" and str(arguments[1]).endswith(".deleting"):
            self._reach("delete")
        elif event == "shutil.rmtree" and ".staging" not in path:
            self._reach("empty")

    def _reach(self, moment: str) -> None:
        if moment != self._plan.moment:
            return
        self._seen += 1
        if self._seen == self._plan.after + 1:
            if self._plan.mark:
                Path(self._plan.mark).write_text(repr(time.time()))
            _ACTS[self._plan.act]()


class Noting(Digits):
    """Notes which processes fetch from it."""

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
        return super().__getitems__(indices)


class Slow(Digits):
    """Rank 1 takes a second and a half for its 60th batch, whatever signal arrives meanwhile."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self._fetched = 0

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        self._fetched += 1
        if self._fetched == 60 and os.environ.get("RANK") == "1":
            Path(os.environ["SLOW_MARK"]).write_text("")
            time.sleep(1.5)
        return super().__getitems__(indices)


_NONE = '{"rank": -1, "moment": "", "act": ""}'


def _raise() -> None:
    raise RuntimeError("the saboteur was here")


def _memory() -> None:
    raise MemoryError("no room for the saboteur")


def _gpu_memory() -> None:
    raise torch.OutOfMemoryError("no room on the saboteur's GPU")


def _cpu_memory() -> None:
    torch.empty(2**62, dtype=torch.uint8)


def _gpu_alloc() -> None:
    raise torch.AcceleratorError("CUDA error: out of memory")


def _fill_disk() -> None:
    """Files cannot grow beyond this any more: a disk that is full, as far as a checkpoint can tell."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, FULL_AT_BYTES))


_ACTS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "memory": _memory,
    "gpu_memory": _gpu_memory,
    "cpu_memory": _cpu_memory,
    "gpu_alloc": _gpu_alloc,
    "fill_disk": _fill_disk,
    "exit": lambda: sys.exit(7),
    "stuck": lambda: ctypes.CDLL(None).usleep(30_000_000) and ctypes.CDLL(None).pause(),
    "sleep": lambda: time.sleep(30),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
}
