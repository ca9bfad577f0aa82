"""Ranks that add tensors up and say what came out: python -m tests.train.distributed.all_reduce_ranks DTYPE:NUMBERS …

Forks them for each line of JSON, {"ranks", "without"}, and answers with one: what each rank says, the first of it the
way that sums go and what was warned of. `without` names what a rank lacks: one of LACKS, or nothing; or what all lack: one
of MACHINES.
"""

import ctypes
import errno
import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import numpy as np
import torch

from phalanx.config.schema import Backend, Device, WorldConfig
from phalanx.exit.rank_env import RankEnv
from phalanx.train.distributed import shared_memory
from phalanx.train.distributed.rendezvous import join
from tests.ranks import free_port, rank_variables


def _no_memory() -> None:
    """None of its files may grow to what the ranks would share."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def _no_memfd() -> None:
    """As a Python that was built for an old C library."""
    del os.memfd_create


def _no_sockets() -> None:
    """As in a sandbox."""

    def refuse(ranks: int, timeout_s: float) -> NoReturn:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    shared_memory.listen = refuse


_CLONE_NEWNS = 0x20000
MACHINES = {
    "room in /dev/shm": "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero >/dev/shm/full",
    "/dev/shm": "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 444 /dev/urandom c 1 9",
}
"""What a machine lacks, as a container may -> how."""


def _move_to_machine(without: str) -> None:
    """Give this process mounts of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["sh", "-c", f"mount --make-rprivate / && {MACHINES[without]}"], check=True)


LACKS: dict[str, tuple[int, Callable[[], None]]] = {
    "": (0, lambda: None),
    "memory": (0, _no_memory),
    "memfd": (0, _no_memfd),
    "sockets": (1, _no_sockets),
}
"""What is lacking -> the rank that lacks it, and how."""


class Warnings(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


def drawn(rank: int, dtype: str, numbers: int) -> torch.Tensor:
    """What `rank` brings: numbers of very different sizes, whose sum depends on the order."""
    generator = np.random.default_rng(rank)
    values = generator.standard_normal(numbers) * 10.0 ** generator.integers(-3, 4, numbers)
    tensor: torch.Tensor = torch.from_numpy(values).to(getattr(torch, dtype))
    return tensor


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.view(torch.uint8).numpy().tobytes()).hexdigest()


def added(cases: list[str]) -> Iterator[str | list[str]]:
    """What a rank says."""
    torch.set_num_threads(1)
    warnings = Warnings()
    logging.getLogger("phalanx").addHandler(warnings)
    world = join(
        RankEnv.from_environment(os.environ), WorldConfig(device=Device.cpu, backend=Backend.gloo, timeout_s=30), False
    )
    world.share_memory(timeout_s=30)
    yield ["through gloo" if world.reducer is None else "through memory", *warnings.told]
    for asked in cases:
        dtype, _, numbers = asked.partition(":")
        yield digest(world.sum(drawn(world.rank, dtype, int(numbers))))
    world.leave()


def main(cases: list[str]) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        ranks, port, said = asked["ranks"], free_port(), []
        for rank in range(ranks):
            hear, tell = os.pipe()
            if os.fork() == 0:
                os.environ.update(rank_variables(rank, ranks, port))
                if asked["without"] in MACHINES:
                    _move_to_machine(asked["without"])
                elif rank == LACKS[asked["without"]][0]:
                    LACKS[asked["without"]][1]()
                os.write(tell, json.dumps(list(added(cases))).encode())
                os._exit(0)
            os.close(tell)
            said.append(os.fdopen(hear))
        answers = [json.loads(file.read()) for file in said]
        assert [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(ranks)] == [0] * ranks
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
