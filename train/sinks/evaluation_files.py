"""The files of evaluations: what a task shows, in shown/, and predictions, in predictions/."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

from phalanx.common.files import write_atomic
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names

from .shown import Shown
from .shown_retention import ShownRetention
from .sink import Sink


@final
class EvaluationFiles(Sink):
    """Writes below the run's folder, each file whole; nothing where `check` raises ConfigError: another start has the run.

    Training is told that where it writes next. It comes before the trackers, which read what it has written.
    """

    def __init__(self, folder: Path, check: Callable[[], None], retention: ShownRetention) -> None:
        self._folder = folder
        self._check = check
        self._retention = retention

    def write(self, line: Mapping[str, object]) -> None:
        """Lines are in metrics.jsonl; what the best one shows is kept."""
        self._retention.take(line)

    def event(self, event: Mapping[str, object]) -> None:
        """Events are in events.jsonl."""

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        if not self._may_write():
            return
        for name, item in shown.items():
            self._write(names.shown_file(str(line["split"]), int(str(line["step"])), name, item.suffix), item.content)
        self._retention.prune(str(line["split"]))

    def predictions(self, line: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> None:
        if not self._may_write():
            return
        text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
        self._write(names.predictions_file(str(line["split"]), int(str(line["step"]))), text.encode())

    def close(self, summary: Mapping[str, object] | None) -> None:
        """Nothing is open."""

    def _may_write(self) -> bool:
        try:
            self._check()
        except ConfigError:
            return False
        return True

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
