"""Calls Slurm's programs (sbatch, squeue, scontrol, scancel, sinfo, sacct) and parses their output."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from phalanx.exit.codes import ConfigError

from ..submission.backend import JobPhase, QueuedJob

_ANSWER_S = 60.0  # timeout: a busy controller answers slowly


_RUNNING = ("RUNNING", "CONFIGURING", "STOPPED", "SUSPENDED")


@dataclass(frozen=True)
class Machines:
    """How many there are, and the GPUs of the one that has most."""

    count: int
    most_gpus: int


def require(environ: Mapping[str, str]) -> None:
    """Raise ConfigError where there is no Slurm to submit to."""
    if shutil.which("sbatch", path=environ.get("PATH")) is None:
        raise ConfigError(
            "There is no sbatch on PATH, so nothing can be submitted from here. Type the command on a login node of the "
            "cluster, outside of any container, or phalanx run to train on this machine"
        )


def submit(rendered: str, environ: Mapping[str, str]) -> str:
    """Run the sbatch command that was rendered, and return the job's id.

    Raises ConfigError with all that sbatch said when it refuses.
    """
    done = _shell(rendered, environ)
    if done.returncode:
        raise ConfigError(f"sbatch refused the job:\n{(done.stderr + done.stdout).strip()}")
    return done.stdout.strip().partition(";")[0]  # the cluster's name follows where there are several


def expected_start(rendered: str, environ: Mapping[str, str]) -> str:
    """When and where the job of a command with --test-only would start. Raises ConfigError when sbatch would refuse it."""
    done = _shell(rendered, environ)
    if done.returncode:
        raise ConfigError(f"sbatch would refuse the job:\n{(done.stderr + done.stdout).strip()}")
    return (done.stderr + done.stdout).strip()


def queued_jobs(environ: Mapping[str, str]) -> list[QueuedJob]:
    """This user's jobs that wait or run, each element of an array by itself. Raises ConfigError when nobody answers."""
    lines = _ask(environ, "squeue", "--me", "--noheader", "--array", "--format=%i|%K|%T|%R|%k").splitlines()
    found = [line.split("|", 4) for line in lines if line.count("|") >= 4]  # others' comments may hold line breaks
    return [
        QueuedJob(job, token, "" if element == "N/A" else element, _phase(state), state, reason.strip("()"))
        for job, element, state, reason, token in found
    ]


def _phase(state: str) -> JobPhase:
    if state == "COMPLETING":
        return JobPhase.ENDING
    return JobPhase.RUNNING if state in _RUNNING else JobPhase.WAITING


def find_machines(partition: str | None, environ: Mapping[str, str]) -> Machines | None:
    """The machines of `partition`, None: of all; None where Slurm knows of none, as it will say itself."""
    where = [] if partition is None else [f"--partition={partition}"]
    lines = set(_ask(environ, "sinfo", "--noheader", "--Node", "--format=%N %G", *where).splitlines())
    gpus = [sum(map(int, re.findall(r"\bgpu:(?:[^:,()]+:)?(\d+)", line))) for line in lines]
    return Machines(len({line.split()[0] for line in lines}), max(gpus)) if lines else None


def check_known(job: str, environ: Mapping[str, str]) -> None:
    """Raise ConfigError for a job that Slurm does not know: what comes after it would never start."""
    if not job_facts(job, environ):
        raise ConfigError(f"--after={job}: Slurm knows no such job, or none any more. `squeue --me` lists yours")


def job_facts(job: str, environ: Mapping[str, str]) -> str:
    """What the controller knows of a job, a line for each element; nothing of one that it has forgotten.

    Raises ConfigError when nobody answers.
    """
    whole = {**environ, "SLURM_BITSTR_LEN": "0"}  # else the indices of an array end in dots
    return _ask(whole, "scontrol", "--oneliner", "show", "job", job, missing="")


def accounted_ends(job: str, environ: Mapping[str, str]) -> dict[str, tuple[str, int, int]]:
    """By the ids of a job or its elements: state, exit code and signal, as far as there is an accounting that knows."""
    try:
        fields = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode")
        lines = _ask(environ, "sacct", f"--jobs={job}", *fields).splitlines()
    except ConfigError:
        return {}
    found = {}
    for line in lines:
        if match := re.fullmatch(r"([^|]+)\|(\w+)[^|]*\|(\d+):(\d+)", line):
            found[match[1]] = (match[2], int(match[3]), int(match[4]))
    return found


def cancel(job: str, environ: Mapping[str, str]) -> None:
    """End a job, or one element of an array. Raises ConfigError when Slurm does not."""
    _ask(environ, "scancel", job)


def _shell(rendered: str, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", rendered], env=dict(environ), capture_output=True, text=True)


def _ask(environ: Mapping[str, str], *command: str, missing: str | None = None) -> str:
    """What a program of Slurm prints. `missing` is the answer where it knows no such job any more."""
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, errors="replace", timeout=_ANSWER_S
        )
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{command[0]} did not answer within {_ANSWER_S:g} s") from None
    if done.returncode == 0:
        return done.stdout
    if missing is not None and "nvalid job id" in done.stderr:
        return missing
    raise ConfigError(f"{command[0]} failed:\n{(done.stderr + done.stdout).strip()}")
