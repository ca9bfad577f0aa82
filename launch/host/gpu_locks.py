"""Locks GPUs for one run, across all users of this machine. A lock ends with the processes that hold it."""

import shlex
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from phalanx.common.redaction import redact_argv
from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

from .machine import Gpu
from .machine_locks import connected_to_holder, try_lock

_TURN_S = 30.0  # timeout for a lock that is held for milliseconds; after it the caller goes on without
_PEER = struct.Struct("3i")  # struct ucred: process, user, group


@dataclass(frozen=True)
class GpuLocks:
    """Locked GPUs. The locks are held as long as any process keeps one of the `descriptors` open."""

    gpus: tuple[Gpu, ...]
    descriptors: tuple[int, ...]


@contextmanager
def lock_gpus(gpus: Sequence[Gpu], ranks: int | None, busy: Mapping[str, str]) -> Iterator[GpuLocks]:
    """Lock a GPU for each of `ranks`; where that is None all that are free, or one slice where GPUs are in slices.

    `busy` are GPUs that other programs use, by their UUIDs, with who does: they are not free. A process that inherits
    the descriptors keeps the lock. Raises ConfigError when too few are free, and names the processes that hold the
    others.
    """
    wanted = ranks or (1 if any(gpu.slice for gpu in gpus) else len(gpus))
    if gpus and wanted > len(gpus):
        raise ConfigError(
            f"{wanted} ranks were asked for, one a GPU, and there are {len(gpus)} GPUs to use. "
            f"Type -n {len(gpus)}, or world.device=cpu to train on the CPU"
        )
    held: dict[Gpu, socket.socket] = {}
    holders: dict[Gpu, str] = {}
    try:
        if gpus:
            _take(gpus, wanted, busy, held, holders)
        if gpus and len(held) < (ranks or 1):
            _refuse(wanted, held, holders, any(gpu.uuid in busy for gpu in holders))
        if len(held) < wanted and gpus:
            say(f"phalanx: training on {len(held)} of {wanted} GPUs, for {'; '.join(holders.values())}")
        yield GpuLocks(tuple(held), tuple(name.fileno() for name in held.values()))
    finally:
        for name in held.values():
            name.close()


def _take(
    gpus: Sequence[Gpu],
    wanted: int,
    busy: Mapping[str, str],
    held: dict[Gpu, socket.socket],
    holders: dict[Gpu, str],
) -> None:
    """Lock up to `wanted` of `gpus` into `held`, and find who holds the others that were tried."""
    with _turn():
        for gpu in gpus:
            if len(held) == wanted:
                return
            name = try_lock(f"gpu-{gpu.uuid}")
            if name is None:
                holders[gpu] = _holder(gpu)
            elif gpu.uuid in busy:
                holders[gpu] = busy[gpu.uuid]
                name.close()
            else:
                held[gpu] = name


@contextmanager
def _turn() -> Iterator[None]:
    """Serialize the locking: two runs that each locked half of the GPUs they need would both be refused."""
    while (turn := try_lock("gpu-turn")) is None:
        with suppress(ConnectionError), connected_to_holder("gpu-turn", _TURN_S) as other:
            try:
                other.recv(1)  # returns when the holder closes its lock
            except TimeoutError:
                break
    try:
        yield
    finally:
        if turn is not None:
            turn.close()


def _refuse(wanted: int, held: Mapping[Gpu, socket.socket], holders: Mapping[Gpu, str], busy: bool) -> None:
    free = f"Type -n {len(held)}, wait for the others" if held else "Wait for one"
    shared = ", type CUDA_VISIBLE_DEVICES=… before the command to share one with such a program" if busy else ""
    raise ConfigError(
        f"{wanted} GPUs are needed and {len(held)} free: {'; '.join(holders.values())}. {free}{shared}, "
        "or type world.device=cpu to train on the CPU"
    )


def _holder(gpu: Gpu) -> str:
    try:
        with connected_to_holder(f"gpu-{gpu.uuid}", 1.0) as other:
            pid, _, _ = _PEER.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    except OSError:  # unlocked a moment ago
        return f"another run holds {gpu.uuid}"
    return f"process {pid or '?'} holds {gpu.uuid} ({command_line_of(pid) or 'it is gone, its ranks are not yet'})"


def command_line_of(pid: int) -> str | None:
    """The command line of a process, shortened and redacted; None where it is gone or in another container."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return None
    return shlex.join(redact_argv(words))[:100]
