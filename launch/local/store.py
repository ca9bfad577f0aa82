"""The store in which ranks meet: on the first machine, held by what starts the ranks there, so that it outlives each."""

import select
import socket
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

LOOPBACK = "127.0.0.1"
_BACKLOG = 4096  # ranks that call at once
_CALL_S = 30.0
_PART_S = 300.0  # for machines whose ranks end later, as long as torchrun waits


class Store:
    """Held where this is the first of `nodes` machines, and found at `port` of the host `head` where it is another one.

    On one machine it listens on the loopback alone: it unpickles what is put there, so whoever reaches it runs code as
    the user.
    """

    def __init__(self, nodes: int, node: int, head: str, port: int) -> None:
        """Takes `port`, or a free one where that is 0. Raises OSError where it cannot be had."""
        self._others = [f"parted/{other}" for other in range(1, nodes)]
        self._node, self._head = node, head
        self._listener = None if node else _listen(LOOPBACK if nodes == 1 else None, port)
        self.port = port if self._listener is None else int(self._listener.getsockname()[1])
        self._store: Any = None  # torch's, which is not imported before somebody comes

    def close(self) -> None:
        """In a process forked from the one that holds it."""
        if self._listener is not None:
            self._listener.close()

    def open(self) -> None:
        """Serve from when the first rank comes on: those of another program may never. To be called once all are forked."""
        if self._listener is not None:
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def part(self) -> None:
        """Once the ranks of this machine have finished: the store stays until those of all machines have."""
        with suppress(RuntimeError):  # who is gone needs it no more
            if self._node:
                from torch.distributed import TCPStore  # type: ignore[attr-defined]

                store = TCPStore(self._head, self.port, timeout=timedelta(seconds=_CALL_S))
                store.set(f"parted/{self._node}", "")
            elif self._others and self._store is not None:
                self._store.wait(self._others, timedelta(seconds=_PART_S))

    def _serve(self, listener: socket.socket) -> None:
        select.select([listener], [], [])
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        self._store = TCPStore(LOOPBACK, self.port, is_master=True, master_listen_fd=listener.detach())


def _listen(host: str | None, port: int) -> socket.socket:
    if host is None and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    return socket.create_server((host or "", port), backlog=_BACKLOG)
