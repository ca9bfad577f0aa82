"""A task whose rank kills itself once, in a call at a step."""

import os
import signal
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from torch import nn

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio


class Killing(Classification):
    """The kill comes in the `call`-th call after `step` steps, in training or in evaluations, where no file `marker` is."""

    def __init__(self, classes: int, label_smoothing: float, step: int, training: bool, call: int) -> None:
        super().__init__(classes, label_smoothing)
        self._at = (step, training)
        self._call = call
        self._calls = count(1)

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        marker = Path("killed")
        if (self.now.step, self.now.training) == self._at and not marker.exists() and next(self._calls) == self._call:
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().ratios(model, batch)
