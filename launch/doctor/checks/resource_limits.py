"""Resource limits of a process: shared memory, open files, locked memory."""

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..finding import Finding, Verdict, not_checked, passes
from ..protocol.ranks import DoctorRanks

_GIB = 2**30
_SHM_BYTES = _GIB  # data workers hand over batches in it; containers start with 64 MiB
_SHM_LEAST_BYTES = 64 * 2**20
_FILES, _FILES_LEAST = 4096, 1024  # a batch in flight takes a descriptor a tensor, a peer of gloo or NCCL several
_RDMA = Path("/sys/class/infiniband")


class ResourceLimits:
    name = "limits"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        there = Path("/dev/shm").is_dir()
        found = os.statvfs("/dev/shm") if there else None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return {
            "shm_bytes": found.f_blocks * found.f_frsize if found else 0,
            "shm_free_bytes": found.f_bavail * found.f_frsize if found else 0,
            "files": soft,
            "files_most": hard,
            "locked_bytes": None if locked == resource.RLIM_INFINITY else locked,
            "rdma": _RDMA.is_dir() and any(_RDMA.iterdir()),
        }

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        return [_shared_memory(ranks, facts), _open_files(ranks, facts), _locked_memory(ranks, facts)]


def _shared_memory(ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
    rank = min(range(len(facts)), key=lambda rank: facts[rank]["shm_free_bytes"])
    size_bytes, free_bytes = facts[rank]["shm_bytes"], facts[rank]["shm_free_bytes"]
    measured = f"{size_bytes / _GIB:.2f} GiB, {free_bytes / _GIB:.2f} GiB of it free, least on {ranks.hosts[rank]}"
    expected = f"{_SHM_BYTES / _GIB:g} GiB free, for the batches of data workers"
    if free_bytes >= _SHM_BYTES:
        return passes("/dev/shm", measured, expected)
    verdict = Verdict.FAIL if free_bytes <= _SHM_LEAST_BYTES else Verdict.WARN
    advice = "start the container with --ipc=host or --shm-size=8g, or remove what lies there"
    return Finding("/dev/shm", verdict, measured, expected, advice)


def _open_files(ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
    rank = min(range(len(facts)), key=lambda rank: facts[rank]["files"])
    files, most = facts[rank]["files"], facts[rank]["files_most"]
    measured = f"{files} may be raised to {most}, least on {ranks.hosts[rank]}"
    expected = f"{_FILES} a process"
    if files >= _FILES:
        return passes("open files", measured, expected)
    verdict = Verdict.FAIL if files < _FILES_LEAST else Verdict.WARN
    advice = f"type ulimit -n {_FILES} before the command" if most >= _FILES else "have nofile raised in limits.conf"
    return Finding("open files", verdict, measured, expected, advice)


def _locked_memory(ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
    expected = "unlimited where there is RDMA, which pins what it sends"
    limited = [rank for rank, fact in enumerate(facts) if fact["rdma"] and fact["locked_bytes"] is not None]
    if limited:
        measured = f"{facts[limited[0]]['locked_bytes']} bytes on {ranks.names(limited[:4])}"
        advice = "set memlock to unlimited, in limits.conf or for the container (--ulimit memlock=-1)"
        return Finding("locked memory", Verdict.FAIL, measured, expected, advice)
    if not any(fact["rdma"] for fact in facts):
        return not_checked("locked memory", "no InfiniBand or RoCE device", expected)
    return passes("locked memory", "unlimited on the hosts with RDMA", expected)
