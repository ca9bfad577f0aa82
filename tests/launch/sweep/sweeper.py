"""Real sweeps of real runs, and what they leave behind: what tests of `phalanx sweep` are written with."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.launch.host.processes import children
from phalanx.run_folder import lease_holders
from tests.ranks import QUIET, ROOT, SMALL, Nursery, Results, quoted
from tests.warm_command import WarmCommand, run_warm

SHORT = ("model=mlp", "train.steps=8", "eval.every=4", "checkpoint.every=4", "data.augment=null", "log.every=4")

SWEEP = (sys.executable, "-m", "phalanx.launch.cli", "sweep")
HYDRA = (sys.executable, str(ROOT / "train/main.py"), "-m")  # Hydra's own option for it


@dataclass(frozen=True)
class Sweeper:
    """Starts sweeps in `folder`; where there is a `nursery`, from a process that has imported all."""

    folder: Path
    nursery: Nursery | None = None

    @property
    def sweep(self) -> Path:
        return self.folder / "runs" / "s"

    def start(
        self, *words: str, environ: Mapping[str, str] | None = None, command: Sequence[str] | None = None
    ) -> "subprocess.Popen[str]":
        whole = (f"run.root={quoted(str(self.folder / 'runs'))}", "run.name=s", *SMALL, *words)
        options: dict[str, Any] = {
            "cwd": self.folder,
            "env": {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), **(environ or {})},
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        if command is None and self.nursery is not None:
            return WarmCommand(self.nursery, ["sweep", *whole], **options)
        return subprocess.Popen([*(command or SWEEP), *whole], text=True, **options)

    def run(
        self, *words: str, environ: Mapping[str, str] | None = None, command: Sequence[str] | None = None
    ) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        process = self.start(*words, environ=environ, command=command)
        output, errors = process.communicate(timeout=200)
        return process.returncode, output, errors

    def finish(self, *words: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A sweep that must come to its end; returns what is in sweep.json."""
        code, output, errors = self.run(*words, environ=environ)
        assert code == 0, output + errors
        return self.found

    def phalanx(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Another verb, from this folder."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        if self.nursery is not None:
            return run_warm(self.nursery, words, cwd=self.folder, env=environ)
        command = [sys.executable, "-m", "phalanx.launch.cli", *words]
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True)

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.sweep / "sweep.json").read_text())
        return found

    def states(self) -> list[str]:
        return [row["state"] for row in self.found["rows"]]

    def results(self, trial: int) -> Results:
        return Results(self.sweep / f"{trial:04d}")

    def forked(self, trial: int) -> float:
        """When rank 0 of a trial's last start became a process, in seconds since 1970."""
        *_, (holder, _) = lease_holders.holders(self.results(trial).folder)
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - up_s + holder.began / os.sysconf("SC_CLK_TCK")

    def starts(self) -> dict[str, list[str]]:
        """How often each run was begun or gone on with, by the name of its folder."""
        runs = sorted(path.parent for path in self.sweep.glob("*/events.jsonl"))
        return {
            run.name: [e["event"] for e in Results(run).events() if e["event"] in ("start", "resume")] for run in runs
        }


def fork_server_of(sweep: "subprocess.Popen[str]") -> int:
    """The process that a sweep's ranks are forked from."""
    (fork_server,) = children(sweep.pid)
    return fork_server


def interrupt(sweep: "subprocess.Popen[str]") -> None:
    sweep.send_signal(signal.SIGINT)
