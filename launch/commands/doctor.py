"""`phalanx doctor`: starts the ranks that check this machine, or several, and prints their findings."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click

from phalanx.common.columns import terminal_width
from phalanx.common.redaction import redact
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.system.gpu_visibility import GIVEN
from phalanx.system.module_path import PACKAGE

from ..common.broken_pipe import ignore_broken_pipe
from ..common.show import show
from ..doctor.finding import Finding, Verdict, as_json, failed, from_json, passes, table
from ..doctor.reach import is_ours, why_closed
from ..host import processes
from ..host.gpu_locks import lock_gpus
from ..host.machine import this_machine
from ..local import exit_cause

_POLL_S = 0.5
_SLACK_S = 10.0  # for ranks that end a check last, and then name who did not
_START_S = 300.0  # for ranks to import torch, on a slow disk


@click.command()
@click.option(
    "-n", "--ranks", type=click.IntRange(min=1), help="Ranks on this machine. Left out: one a free GPU, or 2."
)
@click.option(
    "--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Machines, each with this command."
)
@click.option("--head", metavar="HOST:PORT", help="Where the machines meet: one of them, and a free port there.")
@click.option(
    "--folder", type=Path, default=Path("runs"), show_default=True, help="Where run folders will be (run.root)."
)
@click.option(
    "--limit",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long one check may take before a rank counts as hanging.",
)
@click.option("--json", "as_data", is_flag=True, help="Print the findings as JSON.")
def doctor(ranks: int | None, nodes: int, head: str | None, folder: Path, limit: float, as_data: bool) -> None:
    """Check versions, GPUs, network, folder and system limits, before money is spent.

    With --nodes type the same command on each machine; each prints the same report. phalanx submit --doctor does it
    as a job.

    The exit code is 1 when a line fails, else 0; 2 for bad input.
    """
    ignore_broken_pipe()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--folder={folder} is no folder. Name the one that run folders will be in")
    _check(nodes, head)
    before = _options(os.environ)
    try:
        machine = this_machine(os.environ, wants_gpus=True)
    except ConfigError as error:
        advice = "see what nvidia-smi says there"
        before.append(Finding("GPU driver", Verdict.FAIL, str(error), "NVML lists the GPUs", advice))
        machine = this_machine(os.environ, wants_gpus=False)
    if machine.gpus and ranks and ranks > len(machine.gpus):
        raise ConfigError(
            f"{ranks} ranks were asked for, one a GPU, and there are {len(machine.gpus)} GPUs to use. "
            f"Type -n {len(machine.gpus)}, or CUDA_VISIBLE_DEVICES= before the command to check without GPUs"
        )
    with lock_gpus(machine.gpus, ranks, {}) as locked:
        size = ranks or len(locked.gpus) or 2
        environ = {"OMP_NUM_THREADS": str(max(1, machine.cpus // size))}
        if machine.gpus or failed(before):
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in locked.gpus)
            environ[GIVEN] = str(len(locked.gpus))
        argv = _agent(size, nodes, head, limit)
        if head and (missed := _missed(nodes, head, limit)):
            findings = [*before, missed]
        else:
            findings = before + _run_checks(argv, folder, environ, locked.descriptors, limit)
    show(as_json(findings) if as_data else table(findings, terminal_width(sys.stdout)))
    sys.exit(ExitCode.BUG if failed(findings) else ExitCode.FINISHED)


def _options(environ: Mapping[str, str]) -> list[Finding]:
    """A warning for PET_* variables, which torchrun reads as its options before our code runs."""
    found = [f"{name}={redact(value)}" for name, value in sorted(environ.items()) if name.startswith("PET_")]
    if not found:
        return []
    advice = (
        "a bare torchrun takes them for its options: with PET_NNODES=2 it waits 600 s for another machine before your "
        "program starts, in silence. Type env -u PET_NNODES before the command to train on this machine alone"
    )
    expected = "none but those of a platform that starts each machine"
    return [Finding("torchrun's variables", Verdict.WARN, ", ".join(found), expected, advice)]


def _check(nodes: int, head: str | None) -> None:
    if nodes == 1 and head is not None:
        raise ConfigError(f"--head={head} is where several machines meet. Type --nodes N with it, or leave it out")
    host, _, port = (head or "").rpartition(":")
    if nodes > 1 and not (host and port.isdecimal()):
        given = f"--head={head} is no HOST:PORT" if head else "--head is missing"
        raise ConfigError(f"--nodes={nodes} and {given}. Name a machine and a free port of it: --head node1:29400")


def _agent(ranks: int, nodes: int, head: str | None, limit_s: float) -> list[str]:
    """The agent's options."""
    if nodes == 1:
        return [f"--ranks={ranks}", "--grace=5"]  # a rank that hangs has nothing to save
    times = f"timeout={limit_s:g},join_timeout={limit_s:g},last_call_timeout=1,read_timeout={limit_s:g}"
    found = ["--rdzv-backend=c10d", f"--rdzv-endpoint={head}", f"--rdzv-conf={times}"]
    return [f"--nnodes={nodes}", *found, f"--nproc-per-node={ranks}", "--max-restarts=0"]


def _missed(nodes: int, head: str, limit_s: float) -> Finding | None:
    """Why another machine cannot be met at `head`, after waiting for it up to the limit; None where it can."""
    host, _, port = head.rpartition(":")
    why, end_s = "", time.monotonic() + limit_s
    try:
        if is_ours(host):
            return None
        while (why := why_closed(host, int(port))) and time.monotonic() < end_s:
            time.sleep(0.5)
    except socket.gaierror:
        why = "no address is known of this name"
    advice = "type the same command on that machine at the same time, and open the port between the machines"
    expected = f"{nodes} machines meet there"
    return Finding("rendezvous", Verdict.FAIL, f"{head}: {why}", expected, advice) if why else None


def _run_checks(
    argv: Sequence[str], folder: Path, environ: dict[str, str], descriptors: Sequence[int], limit_s: float
) -> list[Finding]:
    """Start the ranks, wait for their report, and kill what is left of them."""
    processes.become_subreaper()
    with tempfile.TemporaryDirectory(prefix="phalanx-doctor-") as name:
        report = Path(name) / "report.json"
        entry = [str(PACKAGE / "launch" / "doctor" / "main.py"), f"--folder={folder}", f"--limit={limit_s:g}"]
        command = [
            *(sys.executable, "-u", str(PACKAGE), "-m", "launch.local.agent", *argv),
            *(*entry, f"--report={report}"),
        ]
        whole = {
            "PET_LOG_DIR": str(Path(name) / "torchrun"),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5",  # a rank that hangs has nothing to save
            **os.environ,
            **environ,
            **exit_cause.file_variables(Path(name)),
            "PHALANX_RESTART_COUNT": "0",
        }
        bystanders = set(processes.children(os.getpid()))
        agent = subprocess.Popen(
            command,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,  # the report alone goes to standard output
            pass_fds=descriptors,
            start_new_session=True,
            preexec_fn=processes.end_with_this_process(signal.SIGTERM),
        )
        try:
            code = _wait(agent, report, limit_s)
        finally:
            _kill_leftovers(agent, bystanders)
        return _read(report, code, limit_s)


def _wait(agent: "subprocess.Popen[bytes]", report: Path, limit_s: float) -> int | None:
    """The agent's exit code; None where the ranks report no check any more, and do not end themselves either."""
    reported, end_s = 0, time.monotonic() + _START_S + 2 * limit_s
    while time.monotonic() < end_s:
        with suppress(subprocess.TimeoutExpired):
            return agent.wait(_POLL_S)
        if report.exists() and (size := report.stat().st_size) != reported:  # it grows with each check
            reported, end_s = size, time.monotonic() + 2 * limit_s + _SLACK_S
    return None


def _read(report: Path, code: int | None, limit_s: float) -> list[Finding]:
    """What the ranks found, and how they ended where that was before all was checked. `code` is None for never."""
    findings: list[Finding] = []
    with suppress(OSError, ValueError, KeyError):
        findings = from_json(report.read_text(encoding="utf-8"))
    expected = "all ranks come, answer and leave"
    if code == 0 and findings:
        return [*findings, passes("ranks", "all checks ran to the end", expected)]
    if any(finding.name == "ranks" for finding in findings):
        return findings
    told = (
        f"no word for more than twice {limit_s:g} s" if code is None else exit_cause.read(report.parent, code).message
    )
    if not findings and not any(report.parent.glob("*.json")):
        told += " and no rank said anything; with --nodes, as when fewer machines came than that"
    last = f", after {findings[-1].name}" if findings else ", before the first check"
    advice = "see what that rank last printed above; look at its GPU and its host (dmesg) if it was killed"
    return [*findings, Finding("ranks", Verdict.FAIL, told + last, expected, advice)]


def _kill_leftovers(agent: "subprocess.Popen[bytes]", bystanders: set[int]) -> None:
    if agent.poll() is None:
        agent.kill()
        agent.wait()
    end_s = time.monotonic() + 10.0
    while time.monotonic() < end_s and (left := set(processes.children(os.getpid())) - bystanders):
        for pid in left:
            processes.send_signal(pid, signal.SIGKILL)
        time.sleep(0.02)
        processes.reap_children()
