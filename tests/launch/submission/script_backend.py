"""A second backend, for tests: a job is a shell script in a folder, which runs when somebody waits for it or starts it."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from phalanx.config.schema import ClusterConfig
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.launch.submission.array import array_indices
from phalanx.launch.submission.backend import JobPhase, JobSpec, QueuedJob, element_id
from phalanx.launch.submission.exit_policy import EXIT_POLICY, Action
from tests.ranks import Nursery

SCRIPT = """#!/bin/bash
# {token}
# elements: {elements}
# requeues: {requeues}
# folder: {folder}
element=$1 restarts=$3
export PHALANX_JOB=$2 PHALANX_JOB_RESTARTS=$3 PHALANX_LAUNCH=script-$2
cd {directory}
{setup}
mapfile -d '' -t words <{quoted}/words
exec {python} {code}/phalanx/{entry} "${{words[@]//"%a"/$element}}"
"""
# Stands for Python where a rank is forked that has what it was given.
TELLS = """#!/bin/sh
printf '%s\\0' "$PWD" "$@" >"$TOLD.words"
env -0 >"$TOLD.environ"
"""


@dataclass(frozen=True)
class Start:
    """A start of a job: its process, and what waits for its exit code."""

    pid: int
    wait: Callable[[], int]


@dataclass(frozen=True)
class ScriptBackend:
    """`folder` holds a script a job, and for each element the processes and exit codes of its starts, and its own code.

    It knows nothing of Slurm, and sets none of its variables. With a `nursery` the one rank of a job is forked from there,
    once its script has come to where it would start Python.
    """

    folder: Path
    nursery: Nursery | None = None
    name: str = "Script"

    def check(self, cluster: ClusterConfig) -> None:
        if cluster.partition is not None:
            raise ConfigError(f"cluster.partition={cluster.partition}: a folder has none. Leave it out")

    def check_live(self, cluster: ClusterConfig, after: str | None) -> None:
        if after is not None and not self._script(after).exists():
            raise ConfigError(f"--after={after}: there is no such job")

    def render(self, job: JobSpec) -> str:
        return SCRIPT.format(
            token=job.submission.token,
            elements=" ".join(map(str, array_indices(job.array))) if job.array else "-",
            requeues=job.cluster.max_requeues,
            directory=shlex.quote(str(job.submission.directory)),
            setup="\n".join(job.cluster.setup),
            folder=job.submission.folder,
            quoted=shlex.quote(str(job.submission.folder)),
            python=shlex.quote(job.python if self.nursery is None else str(self.folder / "tells")),
            code=shlex.quote(str(job.submission.code)),
            entry=job.entry,
        )

    def submit(self, rendered: str) -> str:
        (self.folder / "tells").write_text(TELLS)
        (self.folder / "tells").chmod(0o700)
        job = str(len(list(self.folder.glob("*.sh"))) + 1)
        self._script(job).write_text(rendered)
        return job

    def expected_start(self, job: JobSpec) -> str:
        return f"{job.name} starts when somebody waits for it"

    def query(self) -> list[QueuedJob] | None:
        return [
            self._queued(job, element)
            for job in sorted(path.stem for path in self.folder.glob("*.sh"))
            for element in self._elements(job)
            if not self._code(job, element).exists()
        ]

    def _queued(self, job: str, element: str) -> QueuedJob:
        name = element_id(job, element)
        phase, state, reason = JobPhase.WAITING, "WRITTEN", "nobody waits"
        if self._pids(name):
            phase, state, reason = JobPhase.RUNNING, "RUNNING", "here"
        return QueuedJob(name, self._told(job, ""), element, phase, state, reason)

    def cancel(self, job: str) -> None:
        """By a signal that also a process takes which is stopped."""
        (self.folder / f"{job}.code").write_text("cancelled")
        for pid in self._pids(job)[-1:]:
            os.killpg(pid, signal.SIGKILL)

    def wait(self, job: str, elements: Collection[str]) -> int:
        for element in elements:
            if not self._code(job, element).exists():
                self._run(job, element)
        codes = [self._code(job, element).read_text() for element in elements]
        return max(ExitCode.BUG if code == "cancelled" else int(code) for code in codes)

    def cancelled(self, job: str) -> dict[str, bool]:
        ended = [element for element in self._elements(job) if self._code(job, element).exists()]
        return {element: self._code(job, element).read_text() == "cancelled" for element in ended}

    def log_name(self, job: str) -> str:
        return f"{job}.log"

    def starts(self, job: str, element: str = "") -> list[int]:
        """The exit code of each start."""
        return list(map(int, (self.folder / f"{element_id(job, element)}.starts").read_text().split()))

    def start(self, job: str, element: str = "") -> Start:
        """Start a job as it is, though an earlier start of it should be running."""
        name = element_id(job, element)
        number = len(self._pids(name))
        command = ["bash", str(self._script(job)), element, name, str(number)]
        log, told = Path(self._told(job, "folder: "), self.log_name(name)), self.folder / f"{name}-{number}"
        with log.open("a") as output:
            environ = {**os.environ, "TOLD": str(told)}
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
        started = Start(process.pid, process.wait)
        if self.nursery is not None:
            process.wait()
            if told.with_suffix(".environ").exists():
                started = _forked(self.nursery, told, log)
        with (self.folder / f"{name}.pids").open("a") as pids:
            pids.write(f"{started.pid} ")
        return started

    def stands_still(self, job: str) -> bool:
        """Whether the first start of a job was stopped by SIGSTOP."""
        pids = self._pids(job)
        return bool(pids) and Path(f"/proc/{pids[0]}/stat").read_text().rpartition(") ")[2].startswith("T")

    def _run(self, job: str, element: str) -> None:
        name = element_id(job, element)
        for _ in range(int(self._told(job, "requeues: ")) + 1):
            code = self.start(job, element).wait()
            if self._code(job, element).exists():  # it was cancelled
                return
            with (self.folder / f"{name}.starts").open("a") as starts:
                starts.write(f"{code} ")
            if EXIT_POLICY[ExitCode(code)].action is Action.DONE:
                break
        self._code(job, element).write_text(str(code))

    def _pids(self, name: str) -> list[int]:
        path = self.folder / f"{name}.pids"
        return list(map(int, path.read_text().split())) if path.exists() else []

    def _elements(self, job: str) -> list[str]:
        told = self._told(job, "elements: ")
        return [""] if told == "-" else told.split()

    def _told(self, job: str, what: str) -> str:
        found = re.search(rf"^# {what}(.*)$", self._script(job).read_text(), re.MULTILINE)
        assert found is not None
        return found[1]

    def _script(self, job: str) -> Path:
        return self.folder / f"{job}.sh"

    def _code(self, job: str, element: str) -> Path:
        return self.folder / f"{element_id(job, element)}.code"


def _forked(nursery: Nursery, told: Path, log: Path) -> Start:
    directory, _, *words = told.with_suffix(".words").read_text().split("\0")[:-1]
    lines = told.with_suffix(".environ").read_text().split("\0")[:-1]
    environ = dict(line.split("=", 1) for line in lines)
    pid = nursery.fork({"argv": words, "environ": environ, "cwd": directory, "output": str(log)})
    return Start(pid, lambda: nursery.wait(pid))
