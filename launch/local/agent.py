"""What starts and watches the ranks of one machine, and says how they ended.

-m launch.local.agent --ranks=N --grace=SECONDS [--cores=0-3:4-7] SCRIPT [WORD]...
-m launch.local.agent --ranks=N --grace=SECONDS --nodes=M --node=K --head=HOST --port=PORT SCRIPT [WORD]...
-m launch.local.agent --nnodes=M ... SCRIPT [WORD]...    # torchrun with its options, for machines that have no numbers
"""

import signal
import time

_BEGUN_S = time.time()
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until it listens: an import that is interrupted would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which the launcher holds back until Python has started

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from phalanx.exit.cause_file import correct, witness
from phalanx.exit.codes import ExitCode
from phalanx.exit.messages import say

from ..host.oom_kills import kills
from . import ranks, torchrun
from .exit_cause import RANKS, first_failed, for_memory
from .store import Store


def main() -> None:
    """Ends with 0, with 1 when a rank failed, and with 128 and the number of the signal that it was told to leave with."""
    argv, before = sys.argv[1:], kills()
    if argv[:1] and argv[0].startswith("--nnodes="):
        ended = _by_torchrun(argv)
    else:
        asked = ranks.Asked.of(argv)
        ended = ranks.start(asked, _store(asked), _BEGUN_S)
    if ended.told is not None:
        sys.exit(128 + ended.told)  # its ranks were told, and have left
    if ended.failed:
        _fail(ended.failed, before)


def _store(asked: ranks.Asked) -> Store:
    try:
        return Store(asked.nodes, asked.node, asked.head, asked.port)
    except OSError as error:
        message = f"port {asked.port} of {socket.gethostname()} cannot be used for the ranks' store: {error.strerror}"
        say(f"error: {message}")
        if RANKS not in os.environ:
            witness(ExitCode.BUG, message)
        sys.exit(ExitCode.BUG)


def _by_torchrun(argv: Sequence[str]) -> ranks.Ended:
    try:
        return torchrun.start(argv)
    except Exception as error:
        if RANKS not in os.environ:
            witness(ExitCode.BUG, f"torchrun failed: {error}")
        raise


def _fail(failed: Sequence[tuple[int, int, float]], killed_before: int) -> NoReturn:
    """Leave word of how ranks ended: for a launcher that asks, else in the cause file.

    srun ends with the signal that killed an agent on another node, which may be the one that this failure had sent there.
    """
    if file := os.environ.get(RANKS):
        Path(file).write_text(json.dumps(failed))
        sys.exit(ExitCode.BUG)
    first = for_memory(first_failed(failed), kills() - killed_before)
    if not first.said:
        print(first.message, file=sys.stderr)
    if first.code is ExitCode.OUT_OF_MEMORY:
        correct(first.code, first.message)
    if first.code is ExitCode.PREEMPTED:
        sys.exit(128 + signal.SIGTERM)
    witness(first.code, first.message)
    sys.exit(ExitCode.BUG)
