"""The bandwidth of an all-reduce over all ranks, by size."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from ..finding import Finding, Verdict, not_checked, passes
from ..protocol.group import device
from ..protocol.ranks import DoctorRanks

_MIB = 2**20
_SIZES_BYTES = {"cpu": (64 * 1024, _MIB, 16 * _MIB), "cuda": (_MIB, 32 * _MIB, 256 * _MIB)}
_REPEATS = 5
_SHARE = 0.5  # of what the link carries; NCCL reaches 0.7 and more at large sizes
_EXPECTED = "half of what the slowest link between the ranks carries"


class AllReduce:
    name = "all-reduce"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any] | None:
        if not dist.is_initialized():
            return None
        where = device()
        return {
            "seconds": {str(size_bytes): _time_s(size_bytes, where) for size_bytes in _SIZES_BYTES[where.type]},
            "network_gbyte_per_s": network_gbyte_per_s(Path("/sys/class")),
            "backend": "nccl" if where.type == "cuda" else "gloo",
        }

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any] | None]) -> list[Finding]:
        told = [fact for fact in facts if fact is not None]
        if len(told) < 2 or len(told) < len(facts):
            return [not_checked(self.name, "one rank, or no process group", _EXPECTED)]
        rates = {
            int(size): bus_gbyte_per_s(int(size), max(fact["seconds"][size] for fact in told), len(told))
            for size in told[0]["seconds"]
        }
        shown = ", ".join(f"{rate:.2f} GB/s at {size / _MIB:g} MiB" for size, rate in rates.items())
        measured = f"bus bandwidth with {told[0]['backend']}, {len(told)} ranks: {shown}"
        known = [fact["network_gbyte_per_s"] for fact in told]
        if not ranks.several_hosts:
            expected = f"{_EXPECTED}; not known within one host, so compare with another day or host"
            return [passes(self.name, measured, expected)]
        if None in known:
            return [passes(self.name, measured, f"{_EXPECTED}; the network's rate is not known on every host")]
        least = min(known) * _SHARE
        expected = f"at least {least:.2f} GB/s at the best size, {_EXPECTED}"
        if max(rates.values()) >= least:
            return [passes(self.name, measured, expected)]
        advice = "set NCCL_DEBUG=INFO and see which interface it takes; see the pairs below for the slow node"
        return [Finding(self.name, Verdict.FAIL, measured, expected, advice)]


def bus_gbyte_per_s(size_bytes: int, seconds: float, ranks: int) -> float:
    """What each link carried, in GB/s: the algorithm's bandwidth times 2(n-1)/n.

    Source: NVIDIA/nccl-tests, doc/PERFORMANCE.md, "AllReduce". It does not depend on the number of ranks n.
    """
    return size_bytes / seconds * 2 * (ranks - 1) / ranks / 1e9


def network_gbyte_per_s(sys_class: Path) -> float | None:
    """What the host's network carries in one direction: all RDMA ports together, else its fastest interface."""
    ports = [_first_number(file) for file in sys_class.glob("infiniband/*/ports/*/rate")]  # "400 Gb/sec (4X NDR)"
    links = [_first_number(file) for file in sys_class.glob("net/*/speed")]  # Mbit/s; -1 where it has none
    if rdma := sum(rate for rate in ports if rate):
        return rdma / 8
    fastest = max((rate for rate in links if rate), default=0.0)
    return fastest / 8000 if fastest > 0 else None


def _first_number(file: Path) -> float | None:
    try:
        return float(file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _time_s(size_bytes: int, where: torch.device) -> float:
    """The median time of one all-reduce of float32, seconds. All ranks call it."""
    tensor = torch.zeros(size_bytes // 4, device=where)
    times = []
    for _ in range(_REPEATS + 1):
        # All ranks take part in both.
        dist.barrier(device_ids=[where.index] if where.type == "cuda" else None)
        wait_for(where)
        began = time.perf_counter()
        dist.all_reduce(tensor)
        wait_for(where)
        times.append(time.perf_counter() - began)
    return median(times[1:])  # the first one connects


def wait_for(where: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)
