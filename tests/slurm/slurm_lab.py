"""A Slurm cluster of real daemons on this machine, and jobs on it: what the tests of `phalanx submit` are written with."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ranks import QUIET, ROOT, SMALL, Results, quoted
from tests.warm_command import CommandServer, run_warm

CLUSTER = Path(__file__).with_name("cluster")
_POLL_S = 0.2  # Slurm announces nothing, and each question is a process


@dataclass(frozen=True)
class Cluster:
    """Nodes n1, n2, … with fake GPUs; `folder` is the cluster's own. `commands` is on its login node."""

    folder: Path
    commands: CommandServer | None = None

    @property
    def environ(self) -> dict[str, str]:
        """What the login node's environment has in addition."""
        return {"SLURM_CONF": f"{self.folder}/etc/slurm.conf", "LAB_DIR": str(self.folder)}

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the script `cluster`."""
        environ = {**os.environ, "LAB_DIR": str(self.folder)}
        return subprocess.run([str(CLUSTER), *words], env=environ, capture_output=True, text=True)

    def run(
        self, *words: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """A command on the login node."""
        given = {**QUIET, **(environ or {})}
        return subprocess.run(
            [str(CLUSTER), "run", "env", *(f"{name}={value}" for name, value in given.items()), *words],
            env={**os.environ, "LAB_DIR": str(self.folder)},
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
        )

    def ask(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def node(self, number: int, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command on a node, outside any job."""
        return self.command("exec", str(number), *words)

    def start_on(self, number: int, output: Path, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command on a node, outside any job."""
        command, environ = [str(CLUSTER), "exec", str(number), *words], {**os.environ, "LAB_DIR": str(self.folder)}
        with output.open("w") as file:
            return subprocess.Popen(command, env=environ, stdout=file, stderr=subprocess.STDOUT)

    def state(self, job: str) -> str:
        """What `scontrol` calls it, such as RUNNING; it forgets a job ten minutes after its end."""
        return self.facts(job)["JobState"]

    def facts(self, job: str) -> dict[str, str]:
        line = self.ask("scontrol", "--oneliner", "show", "job", job)
        return {name: value for name, _, value in (word.partition("=") for word in line.split(" "))}

    def rest(self) -> None:
        """End all jobs and heal all nodes."""
        self.ask("scancel", "--me")
        if self.command("status").returncode:
            for node in ("1", "2", "3", "4"):
                self.command("heal-node", node)
        self.until(lambda: self.ask("squeue", "--noheader") == "" and self.command("status").returncode == 0)
        busy = ("completing", "allocated", "mixed")  # a node that still tidies up is passed over for the next job
        self.until(lambda: not self.ask("sinfo", "--noheader", f"--states={','.join(busy)}", "--format=%N"))

    def until(self, true: Callable[[], bool], timeout_s: float = 90.0) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end, f"it never came true\n{self.ask('squeue', '--array')}"
            time.sleep(_POLL_S)


@dataclass
class Desk:
    """Where somebody types: a folder, and what was submitted from it."""

    cluster: Cluster
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def type(self, *words: str, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """phalanx submit, as `words` say."""
        return self.phalanx("submit", *words, environ=environ)

    def phalanx(self, *words: str, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Type `phalanx words`: from a process that has imported it, unless another is asked for by PYTHONPATH."""
        given = {"PYTHONPATH": f"{ROOT}", **self.environ, **(environ or {})}
        if self.cluster.commands is None or given["PYTHONPATH"] != f"{ROOT}":
            return self.cluster.run(sys.executable, "-m", "phalanx.launch.cli", *words, cwd=self.folder, environ=given)
        whole = {**os.environ, **self.cluster.environ, **QUIET, **given}
        return run_warm(self.cluster.commands, words, cwd=self.folder, env=whole)

    def submit(self, *words: str, environ: Mapping[str, str] | None = None) -> "LabJob":
        done = self.type(f"run.root={quoted(str(self.runs))}", *SMALL, *words, environ=environ)
        assert done.returncode == 0, done.stderr
        _, job, folder = done.stdout.splitlines()[0].split(maxsplit=2)
        return LabJob(self.cluster, job, Path(folder))


@dataclass(frozen=True)
class LabJob:
    """A job in the queue, or what became of it."""

    cluster: Cluster
    job: str
    folder: Path

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("slurm-*.out")))

    @property
    def results(self) -> Results:
        (run,) = json.loads((self.folder / "submission.json").read_text())["runs"].values()
        return Results(Path(run))

    def element(self, index: int) -> Results:
        return Results(Path(json.loads((self.folder / "submission.json").read_text())["runs"][str(index)]))

    def nodes(self) -> list[str]:
        """Where it runs, or ran last."""
        return self.cluster.ask("scontrol", "show", "hostnames", self.cluster.facts(self.job)["NodeList"]).split()

    def until_state(self, state: str, job: str | None = None, timeout_s: float = 90.0) -> None:
        self.cluster.until(lambda: self.cluster.state(job or self.job) == state, timeout_s)

    def until_step(self, step: int, results: Results | None = None) -> None:
        """Until a line of metrics at `step` or later is written."""
        file = (results or self.results).folder / "metrics.jsonl"

        def reached() -> bool:
            lines = file.read_text().splitlines() if file.exists() else []
            return any(json.loads(line)["step"] >= step for line in lines)

        self.cluster.until(reached)

    def until_event(self, name: str, times: int) -> dict[str, Any]:
        """The `times`-th event of that name, once it is in events.jsonl."""

        def found() -> list[dict[str, Any]]:
            return self.results.events(name) if (self.results.folder / "events.jsonl").exists() else []

        self.cluster.until(lambda: len(found()) >= times)
        return found()[times - 1]

    def finish(self, timeout_s: float = 180.0) -> Results:
        """The results, once the job has ended well."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
        self.cluster.until(lambda: self.cluster.state(self.job) in ended, timeout_s)
        assert self.cluster.state(self.job) == "COMPLETED", self.log
        return self.results


def program(folder: Path, name: str, text: str) -> None:
    """An executable that stands in the way of a real one, for those who have `folder` first on their PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def first_on_path(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
