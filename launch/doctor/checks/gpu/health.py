"""The GPUs: how many, their memory, errors, clocks and links."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...finding import Finding, Verdict, not_checked, passes
from ...protocol.ranks import DoctorRanks
from .facts import gpu_facts

_GIB = 2**30
_USED_BYTES = 2 * _GIB  # by this process' own context and what the driver keeps


class Gpus:
    name = "GPUs"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any] | None:
        index = own_gpu(ranks)
        if index is None:
            return None
        properties = torch.cuda.get_device_properties(index)
        seen = range(torch.cuda.device_count())
        return {
            "model": properties.name,
            "memory_bytes": properties.total_memory,
            "seen": len(seen),
            "unreachable": [i for i in seen if i != index and not torch.cuda.can_device_access_peer(index, i)],
            "card": gpu_facts(index),
        }

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any] | None]) -> list[Finding]:
        have = {rank: fact for rank, fact in enumerate(facts) if fact is not None}
        names = {
            "GPUs": "one of the same kind for every rank",
            "GPU health": "no uncorrected ECC error, no row to remap, memory free",
            "GPU clocks": "no slowdown by heat or power",
            "GPU links": "peer-to-peer access between the GPUs of a host, all NVLinks up, full PCIe width",
        }
        if not have:
            return [not_checked(name, "no GPU", expected) for name, expected in names.items()]
        if len(have) < len(facts):
            without = [rank for rank in range(len(facts)) if rank not in have]
            text = f"{ranks.names(without[:4])} has no GPU, and {len(have)} ranks have one"
            return [Finding("GPUs", Verdict.FAIL, text, names["GPUs"], "start as many ranks as a host has GPUs")]
        return [
            _kinds(ranks, have, names["GPUs"]),
            _health(ranks, have, names["GPU health"]),
            _clocks(ranks, have, names["GPU clocks"]),
            _links(ranks, have, names["GPU links"]),
        ]


def own_gpu(ranks: DoctorRanks) -> int | None:
    """The CUDA device of this rank; None where it has none."""
    rank = ranks.rank_env.local_rank
    return rank if torch.cuda.is_available() and rank < torch.cuda.device_count() else None


def _kinds(ranks: DoctorRanks, have: Mapping[int, Mapping[str, Any]], expected: str) -> Finding:
    first = have[0]
    measured = f"{len(have)} ranks with {first['model']}, {first['memory_bytes'] / _GIB:.1f} GiB"
    if others := [rank for rank, fact in have.items() if fact["model"] != first["model"]]:
        text = f"{measured} on rank 0; {have[others[0]]['model']} on {ranks.names(others[:4])}"
        return Finding("GPUs", Verdict.WARN, text, expected, "the slowest kind sets the pace; ask for one kind alone")
    return passes("GPUs", measured, expected)


def _health(ranks: DoctorRanks, have: Mapping[int, Mapping[str, Any]], expected: str) -> Finding:
    told = {rank: fact["card"] for rank, fact in have.items() if fact["card"]}
    if not told:
        return not_checked("GPU health", "NVML does not tell", expected, "see what nvidia-smi says there")
    for rank, words in told.items():
        wrong = [
            *([f"{words['uncorrected']} uncorrected ECC errors"] if words["uncorrected"] else []),
            *(["a row could not be remapped"] if words["remap_failed"] else []),
            *(["a row waits to be remapped"] if words["remap_pending"] else []),
        ]
        if wrong:
            text = f"{ranks.name(rank)}: {', '.join(wrong)}"
            return Finding(
                "GPU health", Verdict.FAIL, text, expected, "run without this GPU; have it reset or replaced"
            )
    fullest = max(told, key=lambda rank: told[rank]["used_bytes"] or 0)
    used_bytes = told[fullest]["used_bytes"] or 0
    ecc = {True: "on", False: "off", None: "unknown"}[told[fullest]["ecc"]]
    measured = f"ECC {ecc}, no errors; at most {used_bytes / _GIB:.1f} GiB in use, on {ranks.name(fullest)}"
    if used_bytes > _USED_BYTES:
        advice = "another process is on this GPU: see nvidia-smi there"
        return Finding("GPU health", Verdict.WARN, measured, expected, advice)
    return passes("GPU health", measured, expected)


def _clocks(ranks: DoctorRanks, have: Mapping[int, Mapping[str, Any]], expected: str) -> Finding:
    told = {rank: fact["card"] for rank, fact in have.items() if fact["card"]}
    if not told:
        return not_checked("GPU clocks", "NVML does not tell", expected, "see what nvidia-smi says there")
    hottest = max(told, key=lambda rank: told[rank]["celsius"] or 0)
    words = told[hottest]
    measured = (
        f"{words['clock_mhz']} of {words['clock_most_mhz']} MHz at rest, at most {words['celsius']} degrees Celsius, "
        f"on {ranks.name(hottest)}"
    )
    if slowed := [rank for rank, words in told.items() if words["slowdowns"]]:
        text = f"{ranks.name(slowed[0])}: slowed by {', '.join(told[slowed[0]]['slowdowns'])}; {measured}"
        return Finding("GPU clocks", Verdict.FAIL, text, expected, "see the cooling and the power supply of this host")
    return passes("GPU clocks", measured, expected)


def _links(ranks: DoctorRanks, have: Mapping[int, Mapping[str, Any]], expected: str) -> Finding:
    for rank, fact in have.items():
        words = fact["card"] or {}
        if words.get("nvlinks", 0) < words.get("nvlinks_there", 0):
            text = f"{ranks.name(rank)}: {words['nvlinks']} of {words['nvlinks_there']} NVLinks are up"
            return Finding("GPU links", Verdict.FAIL, text, expected, "see nvidia-smi nvlink -s and the fabric manager")
        lanes, most = words.get("pcie_lanes"), words.get("pcie_lanes_most")
        if lanes and most and lanes < most:
            text = f"{ranks.name(rank)}: {lanes} of {most} PCIe lanes"
            return Finding("GPU links", Verdict.WARN, text, expected, "the card may sit loosely or share its slot")
    cut = [rank for rank, fact in have.items() if fact["unreachable"]]
    if cut:
        text = f"{ranks.name(cut[0])} has no peer-to-peer access to GPUs {have[cut[0]]['unreachable']}"
        return Finding("GPU links", Verdict.WARN, text, expected, "see nvidia-smi topo -p2p r; disable ACS or IOMMU")
    words = have[0]["card"] or {}
    nvlinks = f"{words['nvlinks']} NVLinks a GPU" if words else "NVLinks unknown"
    return passes("GPU links", f"{nvlinks}, peer-to-peer access to all {have[0]['seen']} that a rank sees", expected)
