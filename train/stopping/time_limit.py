"""End a run after a time that all its starts together may take."""

import time

from phalanx.exit.codes import ExitCode
from phalanx.exit.signals import StopRequest

from ..checkpoint.progress import Progress
from .time_spent import TimeSpent


class TimeLimit:
    """Requests the end once all starts took `limit_s` seconds and this one has made a step."""

    def __init__(self, typed: str, limit_s: float, spent: TimeSpent, progress: Progress) -> None:
        """`typed` is the limit as the config has it."""
        self._typed = typed
        self._limit_s = limit_s
        self._spent = spent
        self._progress = progress
        self._first = progress.step

    def request(self) -> StopRequest | None:
        """Only rank 0 has one: clocks differ, and the ranks agree on the step. It is polled once in a while."""
        self._spent.note()
        if self._progress.step == self._first or self._spent.total_s() < self._limit_s:
            return None
        return StopRequest(ExitCode.FINISHED, f"train.time_limit={self._typed} has passed", time.time())
