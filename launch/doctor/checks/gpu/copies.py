"""The bandwidth of copies from host memory to the GPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...finding import Finding, Verdict, not_checked, passes
from ...protocol.ranks import DoctorRanks
from ...protocol.stopwatch import mean_seconds
from .facts import gpu_facts
from .health import own_gpu

_SIZE_BYTES = 256 * 2**20
_REPEATS = 8
_SHARE = 0.5
# GB/s a lane and direction after line encoding (PCI Express base specifications 1.0 to 6.0).
_LANE_GBYTE_PER_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}


class HostToDevice:
    name = "host to device"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any] | None:
        index = own_gpu(ranks)
        if index is None:
            return None
        rate = _gbyte_per_s(torch.device("cuda", index))
        words = gpu_facts(index) or {}  # after the copies, for a link at rest may be of a lower generation
        lane = _LANE_GBYTE_PER_S.get(words.get("pcie_generation") or 0)
        lanes = words.get("pcie_lanes")
        return {"rate": rate, "link": lane * lanes if lane and lanes else None}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any] | None]) -> list[Finding]:
        have = {rank: fact for rank, fact in enumerate(facts) if fact is not None}
        expected = f"{_SHARE:.0%} of what the PCIe link carries, from pinned memory, all ranks at once"
        if not have:
            return [not_checked(self.name, "no GPU", expected)]
        slowest = min(have, key=lambda rank: have[rank]["rate"])
        rate, link = have[slowest]["rate"], have[slowest]["link"]
        carries = f"{link:.1f} GB/s" if link else "an unknown rate"
        measured = f"{rate:.1f} GB/s on {ranks.name(slowest)}, the slowest; its link carries {carries}"
        if link and rate < _SHARE * link:
            advice = "see the card's PCIe slot, and bind ranks to the NUMA node of their GPU (phalanx run does so)"
            return [Finding(self.name, Verdict.FAIL, measured, expected, advice)]
        return [passes(self.name, measured, expected)]


def _gbyte_per_s(where: torch.device) -> float:
    host = torch.empty(_SIZE_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(host, device=where)
    return _SIZE_BYTES / mean_seconds(where, lambda: there.copy_(host, non_blocking=True), _REPEATS) / 1e9
