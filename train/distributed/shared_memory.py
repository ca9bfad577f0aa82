"""The sum of a tensor over the ranks of one machine, through memory that they share.

Over the loopback a reduction of gloo's passes through four threads and the network stack; on two cores that takes longer
than a small model's forward and backward. Here each rank copies what it has into its slot, says so to every other rank
with one byte through a socket, waits for theirs, and adds up what lies in all slots. A rank that dies closes its sockets,
so the others know at once. For a moment a rank looks again and again whether a byte has come, as one that sleeps takes
longer to wake than the others are late.
"""

import errno
import mmap
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
import torch.distributed as dist

from phalanx.system import cpu_count

_SLOT = 2**20  # bytes; larger tensors go piece by piece
_READY = b"."
_AWAKE_S = 100e-6
_VIEWS = 64  # kept; sums of gradients come again in each step


class SharedMemoryReducer:
    """What one rank holds of it. All ranks call `all_reduce` with tensors of the same sizes, in the same order."""

    def __init__(self, rank: int, memory: torch.Tensor, peers: Mapping[int, socket.socket]) -> None:
        """`memory` is of bytes and shape (2, ranks, bytes of a slot)."""
        self._rank = rank
        self._memory = memory
        self._peers = peers
        self._others = list(peers.values())
        self._turn = 0
        self._heard = len(peers)  # how many others were heard of in this turn, in their order
        self._awake_s = _AWAKE_S if len(peers) < cpu_count.available() else 0.0  # else the one waited for has no core
        self._views: dict[tuple[int, int, torch.dtype], list[torch.Tensor]] = {}

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Overwrite a flat CPU tensor with its sum over all ranks, added in their order: the same bits on each.

        Raises DistNetworkError when another rank is gone. It waits for as long as the others live; see watch.py.
        """
        at_once = self._memory.shape[2] // tensor.element_size()
        for start in range(0, tensor.numel(), at_once):
            self._reduce(tensor[start : start + at_once])

    def awaited(self) -> list[int]:
        """The ranks whose byte has not come, while `all_reduce` waits for it. Any thread may ask."""
        left = list(self._peers.items())[self._heard :]
        come, _, _ = select.select([peer for _, peer in left], [], [], 0)
        return [rank for rank, peer in left if peer not in come]

    def close(self) -> None:
        for peer in self._others:
            peer.close()

    def _reduce(self, piece: torch.Tensor) -> None:
        # Two sets of slots take turns: whoever is heard of in this turn has read all of the last one's.
        self._turn = 1 - self._turn
        slots = self._slots(piece.numel() * piece.element_size(), piece.dtype)
        slots[self._rank].copy_(piece)
        self._barrier()
        torch.add(slots[0], slots[1], out=piece)
        for slot in slots[2:]:
            piece += slot

    def _slots(self, size: int, dtype: torch.dtype) -> list[torch.Tensor]:
        key = (self._turn, size, dtype)
        if key not in self._views:
            if len(self._views) == _VIEWS:
                self._views.clear()
            self._views[key] = [slot[:size].view(dtype) for slot in self._memory[self._turn]]
        return self._views[key]

    def _barrier(self) -> None:
        """Returns when every rank has come this far. Its system calls also order the reads and writes around it."""
        try:
            for peer in self._others:
                peer.send(_READY)
            for heard, peer in enumerate(self._others):
                self._heard = heard
                if not self._byte(peer):
                    raise dist.DistNetworkError("Connection closed by peer")
            self._heard = len(self._others)
        except OSError as error:
            raise dist.DistNetworkError(f"Connection closed by peer: {error.strerror}") from None

    def _byte(self, peer: socket.socket) -> bytes:
        end_s = time.perf_counter() + self._awake_s
        while time.perf_counter() < end_s:
            with suppress(BlockingIOError):
                return peer.recv(1, socket.MSG_DONTWAIT)
        return peer.recv(1)


def listen(ranks: int, timeout_s: float) -> socket.socket:
    """Where a rank is called by those after it. An abstract name leaves no file behind, whatever becomes of the ranks."""
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(timeout_s)
    listener.bind(b"\0phalanx-" + secrets.token_hex(16).encode())
    listener.listen(ranks)
    return listener


def connect(rank: int, listener: socket.socket, names: Sequence[bytes], timeout_s: float) -> SharedMemoryReducer:
    """Connect the ranks, each to all others. All call it with the `names` of the listeners in rank order.

    Raises OSError where a rank does not come in time or the machine lacks the memory, and on the others then, too.
    """
    peers: dict[int, socket.socket] = {}
    try:
        _call(peers, rank, listener, names, timeout_s)
        memory = _memory(peers, rank, 2 * len(names) * _SLOT)
    except OSError:
        for peer in peers.values():
            peer.close()
        raise
    for peer in peers.values():
        peer.settimeout(None)  # who is late is told by the ranks' watch, which knows what is worth a wait
    return SharedMemoryReducer(rank, memory.view(2, len(names), _SLOT), peers)


def _call(
    peers: dict[int, socket.socket], rank: int, listener: socket.socket, names: Sequence[bytes], timeout_s: float
) -> None:
    """Fill `peers` with a connection to each other rank."""
    for earlier in range(rank):
        peers[earlier] = socket.socket(socket.AF_UNIX)
        peers[earlier].settimeout(timeout_s)
        peers[earlier].connect(names[earlier])
        peers[earlier].send(struct.pack("i", rank))
    while len(peers) < len(names) - 1:
        caller, _ = listener.accept()
        if _user(caller) != os.geteuid():
            caller.close()
            continue
        caller.settimeout(timeout_s)
        (later,) = struct.unpack("i", caller.recv(4))
        peers[later] = caller


def _user(caller: socket.socket) -> int:
    """The user whose process is at the other end: names of sockets are no secret on a machine."""
    _, user, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)


def _memory(peers: Mapping[int, socket.socket], rank: int, size: int) -> torch.Tensor:
    """Memory without a name, made by rank 0 and passed on: it goes when the last rank does."""
    file = _made(peers, size) if rank == 0 else _received(peers[0])
    try:
        memory = mmap.mmap(file, size)
    finally:
        os.close(file)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _made(peers: Mapping[int, socket.socket], size: int) -> int:
    file = os.memfd_create("phalanx-all-reduce")
    try:
        os.posix_fallocate(file, 0, size)  # a lack of memory is an error now and not a signal later
        for peer in peers.values():
            socket.send_fds(peer, [_READY], [file])
    except OSError:
        os.close(file)
        raise
    return file


def _received(leader: socket.socket) -> int:
    _, files, _, _ = socket.recv_fds(leader, 1, 1)
    if not files:
        raise ConnectionAbortedError(errno.ECONNABORTED, "rank 0 could not share memory")
    return files[0]
