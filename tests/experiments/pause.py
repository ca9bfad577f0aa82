"""A sink that holds a run still after a step, so that it can be killed there, and lets every other start pass."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from phalanx import Sink

_FILE = "PAUSE_FILE"


def pausing(file: Path) -> dict[str, str]:
    """The environment of a start that makes `file` once its step is written, and does not go on."""
    return {_FILE: str(file)}


class Pause(Sink):
    """Rank 0 stands still at the line of `step`; the others wait for it in the next step's collective."""

    def __init__(self, step: int) -> None:
        self._step = step

    def write(self, line: Mapping[str, object]) -> None:
        if line["split"] == "train" and line["step"] == self._step and (file := os.environ.get(_FILE)):
            Path(file).touch()
            while True:  # until it is killed
                time.sleep(1)

    def event(self, event: Mapping[str, object]) -> None:
        return

    def close(self, summary: Mapping[str, object] | None) -> None:
        return
