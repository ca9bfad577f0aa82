"""The process group that the collectives of the next examinations run in: gloo, and NCCL where every rank has a GPU."""

import os
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..finding import Finding, not_checked, passes
from .ranks import ExamRanks


class Group:
    name = "process group"

    def measure(self, ranks: ExamRanks) -> dict[str, Any]:
        place = ranks.place
        if place.size == 1:
            return {"backend": None}
        has_gpu = (
            torch.cuda.is_available() and place.local_rank < torch.cuda.device_count() and dist.is_nccl_available()
        )
        nccl = all(ranks.gather("has a GPU", has_gpu))
        if place.one_machine and (loopback := next((n for _, n in socket.if_nameindex() if n.startswith("lo")), None)):
            for backend in ("GLOO", "NCCL"):
                os.environ[f"{backend}_SOCKET_IFNAME"] = loopback
        # So that ranks that wait for one that hangs raise, and it alone is left without an answer.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        if nccl:
            torch.cuda.set_device(place.local_rank)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "gloo",
            store=ranks.store,
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(seconds=ranks.limit_s / 2),
        )
        one = torch.ones(1, device=device())
        dist.all_reduce(one)  # connects all; all ranks take part
        if float(one) != place.size:
            raise RuntimeError(f"the sum of ones over {place.size} ranks is {float(one):g}")
        return {"backend": "nccl" if nccl else "gloo"}

    def judge(self, ranks: ExamRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        if facts[0]["backend"] is None:
            return [not_checked(self.name, "one rank", "an all-reduce of ones is the number of ranks")]
        measured = f"{facts[0]['backend']}, {len(facts)} ranks"
        return [passes(self.name, measured, "an all-reduce of ones is the number of ranks")]


def device() -> torch.device:
    """Where tensors of the group's collectives lie. Called in a group only."""
    nccl = "nccl" in str(dist.get_backend_config())
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
