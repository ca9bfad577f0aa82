"""The stop file of a run folder: asks one start of the run to save and leave."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..common.files import read_text, write_atomic
from ..exit.codes import ExitCode
from ..exit.signals import StopRequest
from . import names


@dataclass(frozen=True)
class StopFile:
    """<run folder>/stop.json, {"incarnation": N}: for the N-th start of the run, and for no later one."""

    run: Path
    incarnation: int

    def ask(self) -> None:
        """Ask that start to save and leave."""
        write_atomic(self.run / names.STOP, json.dumps({"incarnation": self.incarnation}))

    def request(self) -> StopRequest | None:
        """What the file asks of this start; None where there is no file, or it asks another start."""
        try:
            wanted = json.loads(read_text(self.run / names.STOP))["incarnation"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if wanted != self.incarnation:
            return None
        return StopRequest(ExitCode.STOPPED, f"{self.run / names.STOP} asked for it")
