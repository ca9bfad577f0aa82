"""End a run after a time that all its starts together may take."""

import time
from collections.abc import Callable

from phalanx.exit.codes import ExitCode
from phalanx.exit.signals import StopRequest

from ..checkpoint.progress import Progress


class TimeLimit:
    """Requests the end once `limit_s` seconds are over, `spent_s` of them before now, and this start has made a step."""

    def __init__(
        self, typed: str, limit_s: float, spent_s: float, progress: Progress, clock: Callable[[], float]
    ) -> None:
        """`typed` is the limit as the config has it. `clock` returns seconds."""
        self._typed = typed
        self._progress = progress
        self._first = progress.step
        self._clock = clock
        self._end = clock() + limit_s - spent_s

    def request(self) -> StopRequest | None:
        """Only rank 0 has one: clocks differ, and the ranks agree on the step."""
        if self._progress.step == self._first or self._clock() < self._end:
            return None
        return StopRequest(ExitCode.FINISHED, f"train.time_limit={self._typed} has passed", time.time())
