"""Findings of `phalanx doctor`, and ranks that were never started: what its tests are written with."""

import json
from typing import Any

from torch.distributed import HashStore  # type: ignore[attr-defined]

from phalanx.exit.rank_env import RankEnv
from phalanx.launch.doctor.finding import Finding
from phalanx.launch.doctor.protocol.ranks import DoctorRanks


def ranks_on(*hosts: str) -> DoctorRanks:
    """A rank on each of `hosts`, as a check's judge sees them."""
    rank_env = RankEnv(0, len(hosts), 0, hosts.count(hosts[0]), 0, True, "127.0.0.1", 1, False)
    return DoctorRanks(rank_env, HashStore(), hosts, 1.0)


def one(found: list[Finding], name: str) -> Finding:
    """The only finding of that name."""
    (finding,) = [finding for finding in found if finding.name == name]
    return finding


def findings(output: str) -> dict[str, dict[str, Any]]:
    """The report among what else was printed, by name."""
    start = output.index('{\n "failed"')
    report, _ = json.JSONDecoder().raw_decode(output[start:])
    return {words["name"]: words for words in report["findings"]}
