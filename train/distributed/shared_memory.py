"""All-reduce of CPU tensors over the ranks of one machine, through memory that they share.

Over the loopback a gloo all-reduce passes through four threads and the network stack; on two cores that takes longer than
a small model's forward and backward. Here each rank copies its tensor into its slot of the memory, passes a barrier (one
byte through a socket to and from every other rank), and sums all slots. A rank that dies closes its sockets, so the others
notice at once. A rank first polls its sockets for a moment: waking from a blocking read takes longer.

The memory is anonymous (memfd_create), so neither a missing nor a full /dev/shm matters. Where a machine or a container
allows no such memory or sockets, `connect_ranks` says why and World goes on through gloo.
"""

import errno
import mmap
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from phalanx.system import cpu_count

Answer = TypeVar("Answer")
_SLOT = 2**20  # bytes; larger tensors go piece by piece
_READY = b"."
_AWAKE_S = 100e-6
_VIEWS = 64  # cached; each step reduces the same sizes


class SharedMemoryReducer:
    """One rank's part. All ranks call `all_reduce` with tensors of the same sizes, in the same order."""

    def __init__(self, rank: int, memory: torch.Tensor, peers: Mapping[int, socket.socket]) -> None:
        """`memory` is of bytes and shape (2, ranks, bytes of a slot)."""
        self._rank = rank
        self._memory = memory
        self._peers = peers
        self._others = list(peers.values())
        self._turn = 0
        self._received = len(peers)  # from how many others a byte came in this turn, in their order
        self._awake_s = _AWAKE_S if len(peers) < cpu_count.available() else 0.0  # else the one waited for has no core
        self._views: dict[tuple[int, int, torch.dtype], list[torch.Tensor]] = {}

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Overwrite a flat CPU tensor with its sum over all ranks, added in their order: the same bits on each.

        Raises DistNetworkError when another rank is gone. There is no timeout here: the watchdog ends
        a wait that takes too long.
        """
        at_once = self._memory.shape[2] // tensor.element_size()
        for start in range(0, tensor.numel(), at_once):
            self._reduce(tensor[start : start + at_once])

    def awaited(self) -> list[int]:
        """The ranks whose barrier byte has not arrived, while `all_reduce` waits. Any thread may call it."""
        left = list(self._peers.items())[self._received :]
        come, _, _ = select.select([peer for _, peer in left], [], [], 0)
        return [rank for rank, peer in left if peer not in come]

    def close(self) -> None:
        for peer in self._others:
            peer.close()

    def _reduce(self, piece: torch.Tensor) -> None:
        # Two sets of slots take turns: a rank whose byte came in this turn has read all slots of the turn before.
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
        """Return when every rank has come this far. All ranks call it.

        Its system calls also order the memory accesses before and after it.
        """
        try:
            for peer in self._others:
                peer.send(_READY)
            for received, peer in enumerate(self._others):
                self._received = received
                if not self._byte(peer):
                    raise dist.DistNetworkError("Connection closed by peer")
            self._received = len(self._others)
        except OSError as error:
            raise dist.DistNetworkError(f"Connection closed by peer: {error.strerror}") from None

    def _byte(self, peer: socket.socket) -> bytes:
        end_s = time.perf_counter() + self._awake_s
        while time.perf_counter() < end_s:
            with suppress(BlockingIOError):
                return peer.recv(1, socket.MSG_DONTWAIT)
        return peer.recv(1)


def connect_ranks(
    rank: int, size: int, gather: Callable[[Any], list[Any]], timeout_s: float
) -> tuple[SharedMemoryReducer | None, str]:
    """The reducer of `rank`, or None on all ranks and why one of them has no shared memory. All ranks call it.

    `gather` is World.gather: every rank's value on every rank.
    """
    listener = _or_error(lambda: listen(size, timeout_s))
    # All ranks take part, also one that cannot listen: the others must not wait for its connection.
    addresses = gather(None if isinstance(listener, OSError) else listener.getsockname())
    found: SharedMemoryReducer | OSError
    if isinstance(listener, OSError):
        found = listener
    else:
        with listener:
            every = [address for address in addresses if address is not None]
            found = OSError("")  # the rank that cannot listen says why
            if len(every) == size:
                found = _or_error(lambda: connect(rank, listener, every, timeout_s))
    # All ranks take part: one rank's error sends all to gloo.
    errors = gather(str(found) if isinstance(found, OSError) else None)
    if isinstance(found, SharedMemoryReducer) and errors == [None] * size:
        return found, ""
    if isinstance(found, SharedMemoryReducer):
        found.close()
    return None, next(filter(None, errors), "")


def _or_error(act: Callable[[], Answer]) -> Answer | OSError:
    try:
        return act()
    except OSError as error:
        return error


def listen(ranks: int, timeout_s: float) -> socket.socket:
    """A socket to which later ranks connect. An abstract name leaves no file behind, whatever becomes of the ranks."""
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
        _connect_peers(peers, rank, listener, names, timeout_s)
        memory = _memory(peers, rank, 2 * len(names) * _SLOT)
    except OSError:
        for peer in peers.values():
            peer.close()
        raise
    for peer in peers.values():
        peer.settimeout(None)  # from now on the watchdog times out waits
    return SharedMemoryReducer(rank, memory.view(2, len(names), _SLOT), peers)


def _connect_peers(
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
        said = caller.recv(4)
        if len(said) < 4:
            raise ConnectionAbortedError(errno.ECONNABORTED, "a rank left before it was connected")
        (later,) = struct.unpack("i", said)
        peers[later] = caller


def _user(caller: socket.socket) -> int:
    """The uid of the peer process: abstract socket names are visible to all users of a machine."""
    _, user, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(user)


def _memory(peers: Mapping[int, socket.socket], rank: int, size: int) -> torch.Tensor:
    """Anonymous memory, created by rank 0 and passed by SCM_RIGHTS; freed when the last rank exits."""
    file = _create_memory_file(peers, size) if rank == 0 else _receive_memory_file(peers[0])
    try:
        memory = mmap.mmap(file, size)
    finally:
        os.close(file)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _create_memory_file(peers: Mapping[int, socket.socket], size: int) -> int:
    if not hasattr(os, "memfd_create"):  # a Python that was built for a C library older than glibc 2.27
        raise OSError(errno.ENOSYS, "this Python has no os.memfd_create")
    file = os.memfd_create("phalanx-all-reduce")
    try:
        os.posix_fallocate(file, 0, size)  # a lack of memory is an error now and not a signal later
        for peer in peers.values():
            socket.send_fds(peer, [_READY], [file])
    except OSError:
        os.close(file)
        raise
    return file


def _receive_memory_file(leader: socket.socket) -> int:
    _, files, _, _ = socket.recv_fds(leader, 1, 1)
    if not files:
        raise ConnectionAbortedError(errno.ECONNABORTED, "rank 0 could not share memory")
    return files[0]
