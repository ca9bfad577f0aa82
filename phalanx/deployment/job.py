"""What ranks do with a run instead of training it: the words by which train/main.py is told, and where its answer goes."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..common.files import finite, write_atomic

ANSWER = "PHALANX_ANSWER_FILE"  # variable: the file that rank 0 writes what the command prints to
EVALUATE, EXPORT, PREDICT = "evaluate", "export", "predict"
BEST, LAST = "best", "last"


@dataclass(frozen=True)
class Job:
    """`verb` with the checkpoint `which` of the run in the folder `run`: best, last or a step. `options` are the verb's."""

    verb: str
    run: str
    which: str
    options: Mapping[str, Any]

    def words(self, overrides: Sequence[str]) -> list[str]:
        """The words for train/main.py: the config is that of the run's folder."""
        return [self.verb, json.dumps(asdict(self)), f"--config-dir={self.run}", "--config-name=resolved", *overrides]


def job_of(argv: Sequence[str]) -> tuple[Job | None, list[str]]:
    """What `words` has written, and the words for Hydra; None where these are words to train."""
    if list(argv[:1]) not in ([EVALUATE], [EXPORT], [PREDICT]):
        return None, list(argv)
    return Job(**json.loads(argv[1])), list(argv[2:])


def write_answer(lines: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines where the command reads them; on standard output where no command has asked."""
    write_answer_text("".join(json.dumps(finite(line)) + "\n" for line in lines))


def write_answer_text(text: str) -> None:
    """The same, of lines that are JSON already."""
    path = os.environ.get(ANSWER)
    if path is None:
        print(text, end="", flush=True)
    else:
        write_atomic(Path(path), text)
