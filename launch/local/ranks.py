"""Forks the ranks of one machine, forwards signals to them, and waits until all have ended.

It replaces torchrun's agent: torch is imported once, before the fork, and not once a rank. With PYTHON_EXEC in the
environment that program is started for each rank instead, as torchrun does. On several machines each agent gets its node
number and the address of the first one.
"""

import argparse
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..host import processes
from ..host.held_signals import HeldSignals
from ..host.machine import parse_ranges
from .store import LOOPBACK, Store

_MOMENT_S = 0.1  # for other ranks to receive a failed rank's error, which explains more than a SIGTERM
_STUCK_S = 30.0  # after which a killed process that still exists is given up on


@dataclass(frozen=True)
class AgentOptions:
    """Options of the agent: `here` ranks of `script words` on machine `node` of `nodes`, which all have as many ranks and
    rendezvous at `port` of `head`.

    On one machine that is a free port of the loopback. Where there are `cores`, each rank keeps to its own.
    """

    here: int
    grace_s: float
    cores: Sequence[str]
    nodes: int
    node: int
    head: str
    port: int
    script: str
    words: Sequence[str]

    @classmethod
    def of(cls, argv: Sequence[str]) -> "AgentOptions":
        """Parse the command line of launch/local/agent.py."""
        parser = argparse.ArgumentParser("launch/local/agent.py", allow_abbrev=False)
        parser.add_argument("--ranks", type=int, required=True, help="ranks of this machine")
        parser.add_argument("--grace", type=float, required=True, help="seconds for ranks that were told to leave")
        parser.add_argument("--cores", default="", help="those that each rank keeps to")
        parser.add_argument("--nodes", type=int, default=1, help="machines")
        parser.add_argument("--node", type=int, default=0, help="which of them this one is")
        parser.add_argument("--head", default=LOOPBACK, help="the address of the first one")
        parser.add_argument("--port", type=int, default=0, help="where its store listens")
        parser.add_argument("script")
        parser.add_argument("words", nargs=argparse.REMAINDER)
        found = parser.parse_args(argv)
        cores = list(filter(None, found.cores.split(":")))
        machine = (found.nodes, found.node, found.head, found.port)
        return cls(found.ranks, found.grace, cores, *machine, found.script, found.words)

    def environ(self, local_rank: int, port: int) -> dict[str, str]:
        """The environment variables that torchrun gives a rank; the rendezvous store is at `port` of the head."""
        return {
            "RANK": str(self.node * self.here + local_rank),
            "LOCAL_RANK": str(local_rank),
            "GROUP_RANK": str(self.node),
            "WORLD_SIZE": str(self.nodes * self.here),
            "LOCAL_WORLD_SIZE": str(self.here),
            "GROUP_WORLD_SIZE": str(self.nodes),
            "MASTER_ADDR": self.head,
            "MASTER_PORT": str(port),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": f"{self.grace_s:g}",
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store outlives each rank, so that the others can still agree
        }


@dataclass(frozen=True)
class RankEnds:
    """How ranks ended: `failed` has number, code (negative: signal) and time of each rank that failed.

    `stop_signal` is the first signal that was forwarded to the ranks.
    """

    failed: Sequence[tuple[int, int, float]]
    stop_signal: signal.Signals | None


def start_ranks(asked: AgentOptions, store: Store, begun_s: float) -> RankEnds:
    """Start the ranks and wait until all have ended; `begun_s` is when this process began (time.monotonic()).

    In a rank it does not return: what the rank does ends with SystemExit.
    """
    environs = [asked.environ(rank, store.port) for rank in range(asked.here)]
    os.environ.update(environs[0])  # the config is composed here as the first rank would
    body = _body(asked, begun_s)
    ranks = {}
    with HeldSignals() as signals:
        for local_rank, environ in enumerate(environs):
            hold = processes.end_with_this_process(signal.SIGTERM)
            if (pid := _fork()) == 0:
                hold()
                os.setsid()
                store.close()
                if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
                    processes.raise_on_interrupt()  # what was begun with SIGINT ignored goes on ignoring it
                signals.unblock()
                if asked.cores:
                    os.sched_setaffinity(0, parse_ranges(asked.cores[local_rank]))
                os.environ.update(environ)
                body()
                sys.exit()
            ranks[pid] = int(environ["RANK"])
        store.open()
        ended = _watched(ranks, asked.grace_s, signals)
    if ended.stop_signal is None and not ended.failed:
        store.part()
    return ended


def _body(asked: AgentOptions, begun_s: float) -> Callable[[], None]:
    """Returns what a forked rank executes."""
    if program := os.environ.get("PYTHON_EXEC"):
        return lambda: os.execvp(program, [program, "-u", asked.script, *asked.words])
    from .preload import rank_body

    return rank_body(asked.script, asked.words, begun_s)


def _fork() -> int:
    with warnings.catch_warnings():
        # Suppresses the warning of a fork with threads: they are OpenBLAS's, which joins them before a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _watched(ranks: Mapping[int, int], grace_s: float, signals: HeldSignals) -> RankEnds:
    """Wait until all ranks, by their pids, have ended, and forward signals to them.

    When one has failed, the others get SIGTERM, and SIGKILL after `grace_s`.
    """
    left, failed = dict(ranks), list[tuple[int, int, float]]()
    told: signal.Signals | None = None
    tell_s = kill_s = give_up_s = float("inf")
    while left and (now_s := time.monotonic()) < give_up_s:
        if now_s >= kill_s:
            _send(left, signal.SIGKILL)
            kill_s, give_up_s = float("inf"), now_s + _STUCK_S
        if now_s >= tell_s:
            _send(left, signal.SIGTERM)
            tell_s, kill_s = float("inf"), min(kill_s, now_s + grace_s)
        heard = signals.next(min(tell_s, kill_s, give_up_s) - now_s)
        if heard is not None:
            told = told or (None if failed else heard)  # a rank that failed before the signal came is the cause
            _send(left, heard)
            kill_s = min(kill_s, time.monotonic() + grace_s)
        for pid, code in _ended(left):
            rank = left.pop(pid)
            if code and not failed:
                tell_s = time.monotonic() + _MOMENT_S
            if code:
                failed.append((rank, code, time.time()))
    return RankEnds(failed, told)


def _send(pids: Iterable[int], heard: signal.Signals) -> None:
    for pid in pids:
        processes.send_signal(pid, heard)


def _ended(pids: Iterable[int]) -> list[tuple[int, int]]:
    """The children that have ended by now, each with its exit code."""
    found = [os.waitpid(pid, os.WNOHANG) for pid in pids]
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, status in found if pid]
