"""A data set whose rank waits for a file that a test makes, and then kills itself, once."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.train.faulty_parts import Planted, Sample

SEEN = "seen"


class KilledOnceSeen(Planted):
    def __getitems__(self, indices: NDArray[np.int64]) -> Sample:
        while self._last in indices and not Path(SEEN).exists():
            time.sleep(0.01)
        return super().__getitems__(indices)
