"""A task that stands still until it is let go, and then hurries slowly, so that things can happen to a job in mid-run."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Ratio

_STEP_S = 0.1  # long enough for a wish to stop to reach all ranks before the last step

TASK = "task._target_=tests.paced_task.Paced"


@dataclass(frozen=True)
class Pace:
    """After step `after` of a start, rank 0 waits for the file `gate`, and then takes its time for each step.

    A start that finds the gate open does neither.
    """

    after: int
    gate: str

    def environ(self) -> dict[str, str]:
        return {"PACE": json.dumps(asdict(self))}

    def open(self) -> None:
        Path(self.gate).touch()

    def close(self) -> None:
        """For the starts to come."""
        Path(self.gate).unlink()


class Paced(Classification):
    def __init__(self, classes: int, label_smoothing: float) -> None:
        super().__init__(classes, label_smoothing)
        self._pace = Pace(**json.loads(os.environ["PACE"])) if os.environ.get("RANK") == "0" else None
        self._slow = self._pace is not None and not Path(self._pace.gate).exists()
        self._seen = 0

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        self._seen += model.training
        if (
            self._slow and self._pace is not None and self._seen > self._pace.after + 1
        ):  # the first is the uncounted one
            while not Path(self._pace.gate).exists():
                time.sleep(0.01)
            time.sleep(_STEP_S)
        return super().ratios(model, batch)
