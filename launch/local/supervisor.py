"""Supervises a run on this machine: starts the agent, forwards signals, restarts after failures, kills leftovers."""

import os
import shlex
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import say

from ..host import oom_kills, processes
from ..host.held_signals import HeldSignals
from ..host.machine_locks import holding_lock
from . import exit_cause, nccl_traces
from .exit_cause import ExitCause
from .plan import FOLDER, StartPlan

_AT_ONCE_S = 5.0  # for ranks after the second Ctrl-C
_LINGER_S = 5.0  # for ranks whose agent has died: they exit within two
_STUCK_S = 30.0  # after which a killed process that still exists is given up on


def supervise(
    plan: StartPlan, descriptors: Sequence[int], max_restarts: int, grace_s: float, stdout: int | None = None
) -> ExitCause:
    """Run `plan` to its end, starting it again up to `max_restarts` times; returns the last cause.

    The processes keep `descriptors` open. Ranks that are told to stop have `grace_s` seconds for it. What they print goes
    to the descriptor `stdout`, None for this process's own.
    """
    processes.become_subreaper()
    launch = uuid.uuid4().hex
    with HeldSignals() as signals, holding_lock(f"launch-{launch}"):
        restarts = 0
        while True:
            ended = _run(plan, descriptors, restarts, launch, grace_s, signals, stdout)
            signals.drain()
            if signals.stop_requested or restarts == max_restarts or not ended.worth_a_restart:
                break
            restarts += 1
            say(f"phalanx: starting again ({restarts} of {max_restarts}), because {ended.message}")
    if not ended.said:
        say(f"phalanx: {ended.message}")
    return ended


def _run(
    plan: StartPlan,
    descriptors: Sequence[int],
    restarts: int,
    launch: str,
    grace_s: float,
    signals: HeldSignals,
    stdout: int | None,
) -> ExitCause:
    """Run one start, until its last process has ended."""
    with tempfile.TemporaryDirectory(prefix=FOLDER) as name:
        folder = Path(name)
        environ = {**os.environ, **plan.environ, **plan.of_start(folder, restarts, launch, os.environ)}
        before = oom_kills.kills()
        bystanders = processes.children(os.getpid())  # where this process was exec'ed by one that had children
        hold = processes.end_with_this_process(signal.SIGTERM)

        def enter() -> None:
            hold()
            signals.unblock()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a starting Python would print a traceback

        agent = subprocess.Popen(
            plan.argv,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C reaches this process only, which forwards it
            preexec_fn=enter,
        )
        try:
            killed = _wait(agent, grace_s, signals)
        finally:
            _kill_leftovers(agent, bystanders, signals)
        if kept := nccl_traces.keep_traces(folder):
            say(f"phalanx: NCCL wrote down what each rank was doing. Type torchfrtrace {shlex.quote(str(kept))}")
        return killed or exit_cause.cause_with_oom_kills(
            exit_cause.read(folder, agent.returncode), oom_kills.kills() - before
        )


def _wait(agent: "subprocess.Popen[bytes]", grace_s: float, signals: HeldSignals) -> ExitCause | None:
    """Wait until the agent has ended, forwarding signals. Returns the cause where it must be killed."""
    end_s, why = float("inf"), ""
    while agent.poll() is None:
        heard = signals.next(end_s - time.monotonic())
        if time.monotonic() >= end_s:
            return ExitCause(ExitCode.BUG, why, said=False)
        if heard is None:
            continue
        forward_signal(agent.pid, heard)
        _answer(heard, grace_s, signals)
        if signals.interrupts > 1:
            end_s = min(end_s, time.monotonic() + _AT_ONCE_S)
            why = "ended at once; the same command continues from the newest checkpoint"
        elif end_s == float("inf"):
            end_s = time.monotonic() + grace_s
            why = f"the ranks had not left {grace_s:g} s after {heard.name} and were killed. --grace gives them longer"
    return None


def _answer(heard: signal.Signals, grace_s: float, signals: HeldSignals) -> None:
    """Answer a signal on the console at once; the ranks may take until the end of an import or a step."""
    if signals.interrupts > 1:
        say(f"phalanx: ending it at once, at most {_AT_ONCE_S:g} s")
    else:
        again = "; Ctrl-C once more ends it at once" if heard is signal.SIGINT else ""
        say(f"phalanx: {heard.name}: the ranks are to save and leave, within {grace_s:g} s{again}")


def forward_signal(agent: int, heard: signal.Signals) -> None:
    """Forward a signal to the ranks; to the agent while it has none.

    Not by way of the agent, which would report the signal rather than how the ranks ended.
    """
    for pid in processes.children(agent) or [agent]:
        processes.send_signal(pid, heard)


def _kill_leftovers(agent: "subprocess.Popen[bytes]", bystanders: Collection[int], signals: HeldSignals) -> None:
    """Kill the agent and every process of the start that is left; `bystanders` are other children of this process."""
    linger_s = _LINGER_S
    if agent.poll() is None:
        agent.kill()
        agent.wait()
        linger_s = 0.0
    end_s = time.monotonic() + linger_s
    while left := set(processes.children(os.getpid())).difference(bystanders):
        late_s = time.monotonic() - end_s
        if late_s > _STUCK_S:
            say(f"phalanx: the kernel does not let go of processes {sorted(left)}, as of those in a driver that hangs")
            return
        if late_s >= 0:
            for pid in left:
                processes.send_signal(pid, signal.SIGKILL)
        signals.wait_for_child(0.1)
        processes.reap_children()
