"""Sinks of a user's own: one that keeps what it gets, and some that go wrong."""

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phalanx import Sink


class Kept(Sink):
    """Writes each call as a JSON line to `file` in the run's folder."""

    def __init__(self, file: str, most: int = 1000) -> None:
        self.file, self.most = file, most

    def open(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self.path = folder / self.file
        optim, model = config["optim"]["_target_"], config["model"]
        self.keep("open", {"step": step, "optim": optim, "model": model, "uri": config["mlflow"]["uri"]})

    def write(self, line: Mapping[str, object]) -> None:
        self.keep("write", line)

    def event(self, event: Mapping[str, object]) -> None:
        self.keep("event", event)

    def close(self, summary: Mapping[str, object] | None) -> None:
        self.keep("close", summary)

    def keep(self, call: str, what: Mapping[str, object] | None) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([call, what]) + "\n")


class Raising(Kept):
    """Raises in the call that is named."""

    def __init__(self, where: str) -> None:
        super().__init__("raising.jsonl")
        self.where = where
        if where == "init":
            raise RuntimeError(f"unplugged in {where}")

    def keep(self, call: str, what: Mapping[str, object] | None) -> None:
        super().keep(call, what)
        if call == self.where:
            raise RuntimeError(f"unplugged in {call}")


class Leaving(Kept):
    def write(self, line: Mapping[str, object]) -> None:
        sys.exit(3)


class Hanging(Kept):
    """Takes nothing from its first line on."""

    def write(self, line: Mapping[str, object]) -> None:
        threading.Event().wait()
