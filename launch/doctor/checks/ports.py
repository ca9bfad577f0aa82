"""Whether ranks reach each other by name and on any port, as gloo and NCCL need."""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..finding import Finding, Verdict, passes
from ..protocol.ranks import DoctorRanks
from ..reach import why_closed

_EXPECTED = "each host reaches the others on a free port"


class Ports:
    """Between hosts the first rank of each takes part, on one host every rank, over the loopback."""

    name = "host names and ports"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        rank_env = ranks.rank_env
        takes_part = not ranks.several_hosts or rank_env.rank in ranks.first_of_hosts
        address = "127.0.0.1" if rank_env.one_machine else _own_address(rank_env.address, rank_env.port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family, backlog=rank_env.size + 1) as listener:
            port = listener.getsockname()[1]
            told = ranks.gather("ports", [address, port] if takes_part else None)
            closed = {
                str(rank): why
                for rank, where in enumerate(told)
                if takes_part and where and rank != rank_env.rank and (why := why_closed(*where))
            }
            nameless = [host for host in dict.fromkeys(ranks.hosts) if ranks.several_hosts and not _resolves(host)]
            ranks.gather("ports tried", None)  # nobody stops to listen before
        return {"closed": closed, "nameless": nameless, "address": address}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        for rank, fact in enumerate(facts):
            if fact["closed"]:
                peer, why = next(iter(fact["closed"].items()))
                there = f"{ranks.name(int(peer))} at {facts[int(peer)]['address']}"
                text = f"{ranks.name(rank)} does not reach {there}: {why}"
                advice = (
                    "open all ports between the nodes, or set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to a network"
                )
                return [Finding(self.name, Verdict.FAIL, text, _EXPECTED, advice)]
        nameless = {host: rank for rank, fact in enumerate(facts) for host in fact["nameless"]}
        if nameless:
            host, rank = next(iter(nameless.items()))
            text = f"{ranks.name(rank)} finds no address of {host}"
            advice = "give MASTER_ADDR as an address, or put the name into DNS or /etc/hosts"
            return [Finding(self.name, Verdict.WARN, text, "each host finds the others by name", advice)]
        hosts = len(set(ranks.hosts))
        measured = f"{hosts} hosts reach each other" if hosts > 1 else "ranks of one host reach each other"
        return [passes(self.name, measured, _EXPECTED)]


def _own_address(towards: str, port: int) -> str:
    """The address of this host from which it reaches another. Nothing is sent."""
    family, kind, _, _, found = socket.getaddrinfo(towards, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(found)
        return str(probe.getsockname()[0])


def _resolves(host: str) -> bool:
    with suppress(OSError):
        return bool(socket.getaddrinfo(host, None))
    return False
