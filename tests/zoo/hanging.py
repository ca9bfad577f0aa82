"""Parts that hang on one rank, in one place, as the environment variable HANG says: "RANK PLACE HOW", at the third time.

Where HUNG names a folder, a file there has the name of each process that hangs.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from phalanx.train.data.digits import Digits
from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio

TASK = "task._target_=tests.zoo.hanging.HangingTask"
DATA = "data.train._target_=tests.zoo.hanging.HangingData"
_CHECKED = 2  # forwards at most, before there is a run folder
MODEL = ("model._target_=tests.zoo.hanging.HangingModel",)


class _Place:
    def __init__(self, name: str) -> None:
        rank, place, how = os.environ["HANG"].split()
        self._left = 3 if name == place and rank == os.environ.get("RANK", "0") else -1
        self._how = how

    def reach(self) -> None:
        self._left -= 1
        if self._left == 0:
            if "HUNG" in os.environ:
                Path(os.environ["HUNG"], str(os.getpid())).touch()
            _HOW[self._how]()


class HangingTask(Classification):
    def __init__(self, classes: int, label_smoothing: float) -> None:
        super().__init__(classes, label_smoothing)
        self._train, self._eval = _Place("forward"), _Place("evaluate")
        self._forwards = 0

    def ratios(self, model: nn.Module, batch: Batch) -> "dict[str, Ratio]":
        self._forwards += model.training
        if model.training:
            self._train.reach()
        elif self._forwards > _CHECKED:
            self._eval.reach()
        return dict(super().ratios(model, batch))


class HangingData(Digits):
    """Its workers, where it has any, hang all at once."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self._place = _Place("data")

    def __getitems__(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        self._place.reach()
        return super().__getitems__(indices)


class HangingModel(nn.Module):
    """Hangs, or takes long, when it is asked for its state in the first save."""

    def __init__(self, inputs: int, hidden: list[int], classes: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        self._place = _Place("state")
        self._trained = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self._trained = True
        logits: torch.Tensor = self.layer(images.flatten(1))
        return logits

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        if self._trained:
            self._place.reach()
        return super().state_dict(*args, **kwargs)


def _loop() -> None:
    while True:
        pass


def _poll() -> None:
    while True:
        time.sleep(0.01)


_HOW: dict[str, Callable[[], object]] = {
    "loop": _loop,
    "poll": _poll,
    "sleep": lambda: time.sleep(600),
    "slow": lambda: time.sleep(7),
    "lock": lambda: threading.Lock().__enter__() and threading.Event().wait(),
    "queue": lambda: multiprocessing.get_context("spawn").Queue().get(),
    "block": lambda: ctypes.PyDLL(None).pause(),  # and no other thread of the interpreter runs
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "collective": lambda: dist.all_reduce(torch.ones(1)),
}
