"""The ranks that are checked: rendezvous and gather through a TCPStore, by which a rank that does not answer is named."""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from phalanx.exit.rank_env import RankEnv

_SLACK_S = 5.0  # for the ranks that end a check last, before they count as silent


class SilentRanks(Exception):  # noqa: N818 - an outcome of the checks, not an error of the program
    """Ranks that did not answer in time, by number; the message names them and their hosts."""

    def __init__(self, ranks: Sequence[int], message: str) -> None:
        super().__init__(message)
        self.ranks = tuple(ranks)


@dataclass(frozen=True)
class DoctorRanks:
    """All ranks and the host of each. No check may take longer than `limit_s` seconds."""

    rank_env: RankEnv
    store: Store
    hosts: tuple[str, ...]
    limit_s: float

    @property
    def several_hosts(self) -> bool:
        return len(set(self.hosts)) > 1

    @property
    def first_of_hosts(self) -> tuple[int, ...]:
        """The first rank of each host."""
        return tuple(self.hosts.index(host) for host in dict.fromkeys(self.hosts))

    def name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}"

    def names(self, ranks: Sequence[int]) -> str:
        return ", ".join(self.name(rank) for rank in ranks)

    def gather(self, key: str, value: Any) -> list[Any]:
        """The values of all ranks, which must be JSON. All ranks call it, and leave it when all have.

        Raises SilentRanks when ranks do not come within the limit.
        """
        return _gather(self.store, self.rank_env, f"gather/{key}", value, self.limit_s + _SLACK_S, self.hosts)

    def leave(self) -> None:
        """All ranks call it, last. The first holds the store, and leaves when the others need it no more."""
        self.gather("part", None)
        self.store.set(f"gone/{self.rank_env.rank}", "")
        if self.rank_env.is_rank_zero:
            with suppress(RuntimeError):
                self.store.wait([f"gone/{rank}" for rank in range(self.rank_env.size)], timedelta(seconds=_SLACK_S))


def join_ranks(rank_env: RankEnv, limit_s: float) -> DoctorRanks:
    """All ranks call it. Raises SilentRanks when some did not come, RuntimeError when the store did not."""
    timeout = timedelta(seconds=limit_s)
    listener = None
    if rank_env.one_machine and rank_env.is_rank_zero and not rank_env.hosted:
        listener = socket.create_server(("127.0.0.1", rank_env.port)).detach()  # reachable from this machine only
    store = PrefixStore(
        f"phalanx-doctor/{rank_env.attempt}",
        TCPStore(
            rank_env.address,
            rank_env.port,
            rank_env.size,
            is_master=rank_env.is_rank_zero and not rank_env.hosted,
            timeout=timeout,
            wait_for_workers=False,  # which would not say who is missing
            master_listen_fd=listener,
        ),
    )
    hosts = _gather(store, rank_env, "rendezvous", socket.gethostname(), limit_s, ())
    return DoctorRanks(rank_env, store, tuple(hosts), limit_s)


def _gather(store: Store, rank_env: RankEnv, key: str, value: Any, limit_s: float, hosts: Sequence[str]) -> list[Any]:
    store.set(f"{key}/{rank_env.rank}", json.dumps(value))
    keys = [f"{key}/{rank}" for rank in range(rank_env.size)]
    try:
        store.wait(keys, timedelta(seconds=limit_s))
    except RuntimeError as error:
        missing = [rank for rank, name in enumerate(keys) if not _there(store, name)]
        who = ", ".join(f"rank {rank} on {hosts[rank]}" if hosts else f"rank {rank}" for rank in missing)
        raise SilentRanks(missing, f"{who or 'nobody'} did not answer within {limit_s:g} s ({key})") from error
    return [json.loads(store.get(name)) for name in keys]


def _there(store: Store, key: str) -> bool:
    try:
        return bool(store.check([key]))
    except RuntimeError:  # the store went with the process that held it
        return False
