"""The bandwidth between every two ranks, to find the GPU or node that slows down all."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from ..finding import Finding, Verdict, not_checked, passes
from ..protocol.group import device
from ..protocol.ranks import DoctorRanks
from .allreduce import wait_for

_SIZE_BYTES = {"cpu": 4 * 2**20, "cuda": 64 * 2**20}
_REPEATS = 3
_SLOW = 0.5  # of the median of its kind
_EXPECTED = "every rank exchanges with the others at half of the median rate, or faster"


class Pairs:
    name = "pairs"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any] | None:
        if not dist.is_initialized():
            return None
        rank, where = ranks.rank_env.rank, device()
        rates: dict[str, float] = {}
        errors: dict[str, str] = {}
        for turn in rounds(ranks.rank_env.size):
            peer = next((b if a == rank else a for a, b in turn if rank in (a, b)), None)
            if peer is None:
                continue
            try:
                rates[str(peer)] = _exchange_gbyte_per_s(peer, rank < peer, where)
            except RuntimeError as error:
                errors[str(peer)] = " ".join(str(error).split())[:200]
                if where.type == "cuda":
                    break  # NCCL's communicator does not outlive an error
        return {"rates": rates, "errors": errors, "device": where.type}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any] | None]) -> list[Finding]:
        told = [fact for fact in facts if fact is not None]
        if len(told) < 2 or len(told) < len(facts):
            return [not_checked(self.name, "one rank, or no process group", _EXPECTED)]
        if broken := sorted({*_pairs(told, "errors")}):
            return [_broken(ranks, broken, told)]
        rates = {pair: min(found) for pair, found in _pairs(told, "rates").items()}
        return [_judged(ranks, rates, told[0]["device"] == "cuda")]


def rounds(size: int) -> list[list[tuple[int, int]]]:
    """A round-robin tournament: all pairs of `size` ranks, each rank once a round, in size - 1 rounds (size if odd).

    The circle method: one stands, the others turn by one place a round, and who faces each other is a pair.
    """
    seats: list[int | None] = [*range(size), *([None] if size % 2 else [])]
    found = []
    for _ in range(len(seats) - 1):
        facing = zip(seats[: len(seats) // 2], reversed(seats), strict=False)
        found.append([(min(a, b), max(a, b)) for a, b in facing if a is not None and b is not None])
        seats[1:] = [seats[-1], *seats[1:-1]]
    return found


def slow_ones(rates: Mapping[tuple[int, int], float], kind: Mapping[tuple[int, int], str]) -> list[int]:
    """The ranks all of whose pairs are slow, against the median of the same kind (within a host, or between two).

    Two pairs at least tell a rank from its peer. `rates` may have any unit.
    """
    medians = {k: median(rate for pair, rate in rates.items() if kind[pair] == k) for k in set(kind.values())}
    slow = {pair: rate < _SLOW * medians[kind[pair]] for pair, rate in rates.items()}
    members = sorted({rank for pair in rates for rank in pair})
    own = {rank: [slow[pair] for pair in rates if rank in pair] for rank in members}
    return [rank for rank in members if len(own[rank]) > 1 and all(own[rank])]


def _judged(ranks: DoctorRanks, rates: Mapping[tuple[int, int], float], sure: bool) -> Finding:
    kind = {(a, b): "same host" if ranks.hosts[a] == ranks.hosts[b] else "two hosts" for a, b in rates}
    lowest = min(rates, key=lambda pair: rates[pair])
    shown = f"{len(rates)} pairs, {min(rates.values()):.2f} to {max(rates.values()):.2f} GB/s each way"
    measured = f"{shown}, slowest between {ranks.names(lowest)}"
    by_host: dict[tuple[int, int], list[float]] = {}
    order = list(dict.fromkeys(ranks.hosts))
    for (a, b), rate in rates.items():
        hosts = sorted((order.index(ranks.hosts[a]), order.index(ranks.hosts[b])))
        if hosts[0] != hosts[1]:
            by_host.setdefault((hosts[0], hosts[1]), []).append(rate)
    hosts_rates = {pair: median(found) for pair, found in by_host.items()}
    bad = [order[index] for index in slow_ones(hosts_rates, dict.fromkeys(hosts_rates, "two hosts"))]
    if bad:
        text = f"{', '.join(bad)} is slow with every other host; {measured}"
        return Finding("pairs", Verdict.FAIL, text, _EXPECTED, f"run without {', '.join(bad)}, and see its network")
    if slow := slow_ones(rates, kind):
        # On cores that ranks share, a rate says who had to wait for a core.
        verdict = Verdict.FAIL if sure else Verdict.WARN
        advice = "run without that GPU" if sure else "try again when the machine is idle"
        return Finding("pairs", verdict, f"{ranks.names(slow)} is slow with all; {measured}", _EXPECTED, advice)
    return passes("pairs", measured, _EXPECTED)


def _broken(ranks: DoctorRanks, broken: Sequence[tuple[int, int]], told: Sequence[Mapping[str, Any]]) -> Finding:
    """Names the ranks that are in every broken pair, where there are such."""
    common = set(broken[0]).intersection(*broken) if len(broken) > 1 else set(broken[0])
    text = next(iter(next(fact["errors"] for fact in told if fact["errors"]).values()))
    who = ranks.names(sorted(common)) if common else ranks.names(broken[0])
    measured = (
        f"{len(broken)} pairs failed, all with {who}: {text}" if common else f"{len(broken)} pairs failed: {text}"
    )
    return Finding("pairs", Verdict.FAIL, measured, _EXPECTED, "run without it, and see its GPU and its network")


def _pairs(told: Sequence[Mapping[str, Any]], what: str) -> dict[tuple[int, int], list[Any]]:
    found: dict[tuple[int, int], list[Any]] = {}
    for rank, fact in enumerate(told):
        for peer, value in fact[what].items():
            found.setdefault((min(rank, int(peer)), max(rank, int(peer))), []).append(value)
    return found


def _exchange_gbyte_per_s(peer: int, first: bool, where: torch.device) -> float:
    """The best of some exchanges with `peer`, GB/s each way. Both ranks of the pair call it."""
    sent = torch.zeros(_SIZE_BYTES[where.type] // 4, device=where)
    received = torch.empty_like(sent)
    best_s = float("inf")
    for _ in range(_REPEATS + 1):
        wait_for(where)
        began = time.perf_counter()
        operations = [dist.P2POp(dist.isend, sent, peer), dist.P2POp(dist.irecv, received, peer)]
        # The same order on both sides would have each wait for the other's second operation.
        for work in dist.batch_isend_irecv(operations if first else operations[::-1]):
            work.wait()
        wait_for(where)
        best_s = min(best_s, time.perf_counter() - began)
    return sent.nbytes / best_s / 1e9
