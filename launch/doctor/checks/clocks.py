"""How far the clocks of the hosts are apart."""

import time
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from ..finding import Finding, Verdict, not_checked, passes
from ..protocol.ranks import DoctorRanks

_ROUND_TRIPS = 8
_MOST_S = 1.0  # seconds; leases and the order of events rely on the hosts' clocks
_EXPECTED = f"within {_MOST_S:g} s of rank 0's clock"


class Clocks:
    name = "clock skew"

    def measure(self, ranks: DoctorRanks) -> dict[str, float]:
        """Rank 0 asks the first rank of each other host for the time; others take no part."""
        if not ranks.several_hosts or not dist.is_initialized():
            return {}
        others = [rank for rank in ranks.first_of_hosts if rank != 0]
        if ranks.rank_env.rank in others:
            _answer()
        return {
            str(rank): midpoint_s([_ask(rank) for _ in range(_ROUND_TRIPS)])
            for rank in others
            if ranks.rank_env.is_rank_zero
        }

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, float]]) -> list[Finding]:
        apart_s = facts[0]
        if not apart_s:
            return [not_checked(self.name, "one host, which has one clock, or no process group", _EXPECTED)]
        worst = max(apart_s, key=lambda rank: abs(apart_s[rank]))
        measured = f"{apart_s[worst]:+.4f} s on {ranks.hosts[int(worst)]}, the most of {len(apart_s) + 1} hosts"
        if abs(apart_s[worst]) <= _MOST_S:
            return [passes(self.name, measured, _EXPECTED)]
        return [Finding(self.name, Verdict.FAIL, measured, _EXPECTED, "start chrony or ntpd on that host")]


def midpoint_s(trips: Sequence[tuple[float, float, float]]) -> float:
    """The other clock less this one, seconds, from (asked, other's answer, heard) of some round trips.

    The answer is taken for the middle of its trip, and the shortest trip counts: it errs by half its length at most
    (Cristian, Probabilistic clock synchronization, Distributed Computing 3, 1989).
    """
    asked, answer, heard = min(trips, key=lambda trip: trip[2] - trip[0])
    return answer - (asked + heard) / 2


def _ask(rank: int) -> tuple[float, float, float]:
    told = torch.zeros(1, dtype=torch.float64)
    asked = time.time()
    # Rank 0 and `rank` take part, which answers in `_answer`.
    dist.send(told, rank)
    dist.recv(told, rank)
    return asked, float(told), time.time()


def _answer() -> None:
    heard = torch.zeros(1, dtype=torch.float64)
    for _ in range(_ROUND_TRIPS):
        # This rank and rank 0 take part, which asks in `_ask`.
        dist.recv(heard, 0)
        dist.send(torch.tensor([time.time()], dtype=torch.float64), 0)
