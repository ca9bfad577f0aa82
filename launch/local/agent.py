"""The agent: starts and watches the ranks of one machine, as torchrun's agent does, and reports how they ended.

-m launch.local.agent --ranks=N --grace=SECONDS [--cores=0-3:4-7] SCRIPT [WORD]...
-m launch.local.agent --ranks=N --grace=SECONDS --nodes=M --node=K --head=HOST --port=PORT SCRIPT [WORD]...
-m launch.local.agent --nnodes=M ... SCRIPT [WORD]...    # torchrun with its options, for machines that have no numbers
"""

import signal
import time

_BEGUN_S = time.monotonic()
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until signals are blocked: an interrupted import would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the supervisor blocks it until Python has started

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from phalanx.exit.cause_file import correct_unknown, write_if_absent
from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import say

from ..host.oom_kills import kills
from . import ranks, torchrun
from .exit_cause import RANKS, cause_of_ranks, cause_with_oom_kills
from .store import Store


def main() -> None:
    """Exits with 0, with 1 when a rank failed, and with 128 + signal when it was told to leave."""
    argv, before = sys.argv[1:], kills()
    if argv[:1] and argv[0].startswith("--nnodes="):
        ended = _by_torchrun(argv)
    else:
        asked = ranks.AgentOptions.of(argv)
        ended = ranks.start_ranks(asked, _store(asked), _BEGUN_S)
    if ended.stop_signal is not None:
        sys.exit(128 + ended.stop_signal)  # its ranks were sent the signal, and have left
    if ended.failed:
        _fail(ended.failed, before)


def _store(asked: ranks.AgentOptions) -> Store:
    try:
        return Store(asked.nodes, asked.node, asked.head, asked.port)
    except OSError as error:
        message = f"port {asked.port} of {socket.gethostname()} cannot be used for the ranks' store: {error.strerror}"
        say(f"error: {message}")
        _write_cause(ExitCode.BUG, message)
        sys.exit(ExitCode.BUG)


def _by_torchrun(argv: Sequence[str]) -> ranks.RankEnds:
    try:
        return torchrun.run_torchrun(argv)
    except Exception as error:
        _write_cause(ExitCode.BUG, f"torchrun failed: {error}")
        raise


def _write_cause(code: ExitCode, message: str) -> None:
    """Write the cause file, unless a launcher reads how this agent ended and works the cause out itself."""
    if RANKS not in os.environ:
        write_if_absent(code, message)


def _fail(failed: Sequence[tuple[int, int, float]], killed_before: int) -> NoReturn:
    """Report how ranks ended: in the ranks file of a launcher that reads one, else in the cause file.

    srun's exit code is no substitute: a signal that killed the
    agent of another node, perhaps because of this failure, outweighs it.
    """
    if file := os.environ.get(RANKS):
        Path(file).write_text(json.dumps(failed))
        sys.exit(ExitCode.BUG)
    first = cause_with_oom_kills(cause_of_ranks(failed), kills() - killed_before)
    if not first.said:
        print(first.message, file=sys.stderr)
    if first.code is ExitCode.OUT_OF_MEMORY:
        correct_unknown(first.code, first.message)
    if first.code is ExitCode.PREEMPTED:
        sys.exit(128 + signal.SIGTERM)
    _write_cause(first.code, first.message)
    sys.exit(ExitCode.BUG)
