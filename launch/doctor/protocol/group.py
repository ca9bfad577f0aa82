"""The process group that the collectives of the next checks run in: gloo, and NCCL where every rank has a GPU."""

import os
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..finding import Finding, not_checked, passes
from .ranks import DoctorRanks


class Group:
    name = "process group"

    def measure(self, ranks: DoctorRanks) -> dict[str, Any]:
        rank_env = ranks.rank_env
        if rank_env.size == 1:
            return {"backend": None}
        has_gpu = (
            torch.cuda.is_available() and rank_env.local_rank < torch.cuda.device_count() and dist.is_nccl_available()
        )
        nccl = all(ranks.gather("has a GPU", has_gpu))
        if rank_env.one_machine and (
            loopback := next((n for _, n in socket.if_nameindex() if n.startswith("lo")), None)
        ):
            for backend in ("GLOO", "NCCL"):
                os.environ[f"{backend}_SOCKET_IFNAME"] = loopback
        # So that ranks that wait for one that hangs raise, and it alone is left without an answer.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
        if nccl:
            torch.cuda.set_device(rank_env.local_rank)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if nccl else "gloo",
            store=ranks.store,
            rank=rank_env.rank,
            world_size=rank_env.size,
            timeout=timedelta(seconds=ranks.limit_s / 2),
        )
        one = torch.ones(1, device=device())
        dist.all_reduce(one)  # connects all; all ranks take part
        if float(one) != rank_env.size:
            raise RuntimeError(f"the sum of ones over {rank_env.size} ranks is {float(one):g}")
        return {"backend": "nccl" if nccl else "gloo"}

    def judge(self, ranks: DoctorRanks, facts: Sequence[Mapping[str, Any]]) -> list[Finding]:
        if facts[0]["backend"] is None:
            return [not_checked(self.name, "one rank", "an all-reduce of ones is the number of ranks")]
        measured = f"{facts[0]['backend']}, {len(facts)} ranks"
        return [passes(self.name, measured, "an all-reduce of ones is the number of ranks")]


def device() -> torch.device:
    """Where tensors of the group's collectives lie. Called in a group only."""
    nccl = "nccl" in str(dist.get_backend_config())
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
