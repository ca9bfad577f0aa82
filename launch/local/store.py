"""The rendezvous store (TCPStore) of the ranks: served by the agent of the first machine, so that it outlives each rank."""

import select
import socket
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

LOOPBACK = "127.0.0.1"
_BACKLOG = 4096  # ranks that connect at once
_CALL_S = 30.0
_PART_S = 300.0  # for machines whose ranks end later, as long as torchrun waits


class Store:
    """Serves the store on the first of `nodes` machines; on the others it is a client of `port` on the host `head`.

    On one machine it listens on the loopback only: TCPStore unpickles what clients send, so whoever connects can run code
    as the user.
    """

    def __init__(self, nodes: int, node: int, head: str, port: int) -> None:
        """Binds `port`, or a free one where that is 0. Raises OSError where it cannot be bound."""
        self._others = [f"parted/{other}" for other in range(1, nodes)]
        self._node, self._head = node, head
        self._listener = None if node else _listen(LOOPBACK if nodes == 1 else None, port)
        self.port = port if self._listener is None else int(self._listener.getsockname()[1])
        self._store: Any = None  # torch's TCPStore; torch is imported when the first client connects

    def close(self) -> None:
        """Close the listening socket in a forked rank."""
        if self._listener is not None:
            self._listener.close()

    def open(self) -> None:
        """Serve in a thread from the first connection on. Call it after all forks, for a fork copies no threads."""
        if self._listener is not None:
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def part(self) -> None:
        """Wait until the ranks of all machines have finished: they need the store. Call it when those here have."""
        with suppress(RuntimeError):  # a machine that is gone needs the store no more
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
