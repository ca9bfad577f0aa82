"""The time that all starts of a run took together, what a kill or a crash threw away included.

    lease/00000002.seconds    what start 2 and those before it took so far, as text, once a second

A checkpoint holds only the time of the steps that it saved. Each start has a file of its own, so one that was replaced and
still writes changes nothing of the newer one's. No clock of another machine, and none that can be set, is read: a start
adds what its own monotonic clock tells to the most that it finds. Nothing is fsynced: a kill loses a second at most, the
machine's end what its kernel had not written yet, and then the time that the checkpoint tells holds.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from phalanx.common.files import open_regular, read_text
from phalanx.run_folder import names

_EVERY_S = 1.0
_NAMED = re.compile(rf"[0-9]{{8}}{re.escape(names.SPENT)}")
_SMALL = 64  # bytes


class TimeSpent:
    """Only rank 0 has one; the lease of start `incarnation` is held."""

    def __init__(self, run: Path, incarnation: int, this_start_s: float, clock: Callable[[], float]) -> None:
        """`this_start_s` seconds of this start are over. `clock` returns seconds that only increase."""
        self._file = names.spent_file(run, incarnation)
        self._clock = clock
        self._began = clock() - this_start_s - max(_found(self._file.parent), default=0.0)
        self._due = -math.inf
        self.note()

    def at_least(self, seconds: float) -> None:
        """A checkpoint tells of so many, up to now: more than the files do where an older version saved it."""
        self._began = min(self._began, self._clock() - seconds)

    def total_s(self) -> float:
        return self._clock() - self._began

    def note(self) -> None:
        """Write the total down, unless that was done within the last second. A file that cannot be written is let be."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + _EVERY_S
        with suppress(OSError):
            file = open_regular(self._file, os.O_WRONLY | os.O_CREAT)
            try:
                os.pwrite(file, f"{self.total_s():016.3f}\n".encode(), 0)  # of one length, so never cut short
            finally:
                os.close(file)


def _found(folder: Path) -> Iterator[float]:
    """What the starts before wrote down; a file that holds no number is left out."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if _NAMED.fullmatch(name):
                with suppress(OSError, ValueError):
                    seconds = float(read_text(folder / name, _SMALL))
                    if 0.0 <= seconds < math.inf:
                        yield seconds
