"""The folder of the runs: shared by all hosts, writable, and its write bandwidth."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..finding import Finding, Verdict, not_checked, passes
from ..protocol.ranks import DoctorRanks

_WRITTEN_BYTES = 32 * 2**20
_SLOW_MBYTE_PER_S = 20.0  # a checkpoint of 1 GB would take a minute
_SEEN_WITHIN_S = 10.0  # a network file system may show a new file late
_SHARED = "all ranks write, and see the files of all others"


@dataclass(frozen=True)
class SharedFolder:
    """Leaves nothing behind."""

    path: Path
    name: str = "shared folder"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        told = ranks.gather("folder nonce", [uuid.uuid4().hex, self.path.exists()])
        nonce, made = told[0][0], not all(there for _, there in told)
        ours = self.path.absolute() / f".phalanx-doctor-{nonce}"
        ours.mkdir(parents=True, exist_ok=True)
        try:
            return self._written(ranks, ours, nonce)
        finally:
            with suppress(OSError):
                (ours / f"rank-{ranks.rank_env.rank}").unlink()
            with suppress(OSError):  # the last one to leave finds it empty
                ours.rmdir()
            if made:
                with suppress(OSError):
                    self.path.rmdir()

    def _written(self, ranks: DoctorRanks, ours: Path, nonce: str) -> dict[str, Any]:
        rank = ranks.rank_env.rank
        rate = _write_mbyte_per_s(ours / f"rank-{rank}-rate") if rank in ranks.first_of_hosts else None
        (ours / f"rank-{rank}").write_text(f"{nonce} {rank}")
        ranks.gather("folder written", None)
        missing, waited_s = _missing(ours, nonce, ranks.rank_env.size)
        ranks.gather("folder read", None)  # nobody removes what another still looks for
        free_bytes = os.statvfs(ours).f_bavail * os.statvfs(ours).f_frsize
        return {"missing": missing, "waited_s": waited_s, "mbyte_per_s": rate, "free_bytes": free_bytes}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        return [self._shared(ranks, facts), self._fast(ranks, facts)]

    def _shared(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
        blind = [rank for rank, fact in enumerate(facts) if fact["missing"]]
        if blind:
            first = blind[0]
            measured = (
                f"{ranks.name(first)} does not see in {self.path} what "
                f"{ranks.names(facts[first]['missing'][:4])} wrote there"
            )
            advice = "put run.root on a file system that all nodes mount at the same place"
            return Finding(self.name, Verdict.FAIL, measured, _SHARED, advice)
        waited_s, free_bytes = max(fact["waited_s"] for fact in facts), min(fact["free_bytes"] for fact in facts)
        measured = f"{self.path}: seen by all within {waited_s:.2f} s, {free_bytes / 2**30:.1f} GiB free"
        if free_bytes < 2**30:
            return Finding(self.name, Verdict.FAIL, measured, f"{_SHARED}; 1 GiB free", "free some space")
        return passes(self.name, measured, _SHARED)

    def _fast(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> Finding:
        rates = {ranks.hosts[rank]: fact["mbyte_per_s"] for rank, fact in enumerate(facts) if fact["mbyte_per_s"]}
        expected = f"at least {_SLOW_MBYTE_PER_S:g} MB/s a host, fsync included"
        if not rates:
            return not_checked("write rate", "nobody wrote", expected)
        slowest = min(rates, key=lambda host: rates[host])
        measured = f"{rates[slowest]:.0f} MB/s from {slowest}, the slowest of {len(rates)} hosts, all at once"
        if rates[slowest] >= _SLOW_MBYTE_PER_S:
            return passes("write rate", measured, expected)
        advice = "put run.root on a faster file system, or save less often (checkpoint.every)"
        return Finding("write rate", Verdict.WARN, measured, expected, advice)


def _write_mbyte_per_s(path: Path) -> float:
    """Write bandwidth including fsync, MB/s. The file is removed afterwards."""
    block = os.urandom(2**20)  # some file systems compress
    try:
        began = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(_WRITTEN_BYTES // len(block)):
                file.write(block)
            os.fsync(file.fileno())
        return _WRITTEN_BYTES / (time.perf_counter() - began) / 1e6
    finally:
        path.unlink(missing_ok=True)


def _missing(folder: Path, nonce: str, size: int) -> tuple[list[int], float]:
    """The ranks whose files are not to be seen, and how long it took to see the others, seconds."""
    began, left = time.monotonic(), list(range(size))
    while True:
        left = [rank for rank in left if not _reads(folder / f"rank-{rank}", f"{nonce} {rank}")]
        waited_s = time.monotonic() - began
        if not left or waited_s > _SEEN_WITHIN_S:
            return left, waited_s
        os.listdir(folder)  # has a network file system look again
        time.sleep(0.1)


def _reads(path: Path, text: str) -> bool:
    with suppress(OSError):
        return path.read_text() == text
    return False
