"""Sockets of this user's launchers and ranks that other machines can reach: torchrun's store unpickles what it gets."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from phalanx.system.listening_sockets import non_loopback_addresses

from ..finding import Finding, Verdict, passes
from ..protocol.ranks import DoctorRanks

_OURS = (b"torchrun", b"torch.distributed.run", b"launch.local.agent", b"train/main.py", b"launch/doctor/main.py")


class Listeners:
    """The first rank of each host looks."""

    name = "listening sockets"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        if ranks.rank_env.rank not in ranks.first_of_hosts:
            return {"open": []}
        return {"open": sorted([pid, port] for pid in _trainers() for _, port in non_loopback_addresses([pid]))}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        expected = "only the loopback, or a network that no stranger reaches"
        found = [(ranks.hosts[rank], pid, port) for rank, fact in enumerate(facts) for pid, port in fact["open"]]
        if not found:
            return [passes(self.name, "launchers and ranks listen on the loopback alone", expected)]
        shown = ", ".join(f"process {pid} on {host} at port {port}" for host, pid, port in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        advice = (
            "let a firewall close all ports between these machines and any other: who reaches the store of torchrun runs "
            "code as you. On one machine phalanx run in place of torchrun keeps to the loopback"
        )
        return [Finding(self.name, Verdict.WARN, f"{shown}{more} can be reached from elsewhere", expected, advice)]


def _trainers() -> list[int]:
    """This user's processes that launch ranks, or are some."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            mine = entry.stat().st_uid == os.geteuid()
            if mine and any(word in (entry / "cmdline").read_bytes() for word in _OURS):
                found.append(int(entry.name))
    return found
