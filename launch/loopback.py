"""How torchrun's agent of one machine meets its ranks: in a store that nobody outside the machine reaches.

Torchrun's own (--standalone) listens on all interfaces, for which it has no switch, and unpickles what is put there: who
reaches the port runs code as the user. Here there is no rendezvous to speak of, as the agent is alone, and the store for
its ranks listens on the loopback.
"""

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousInfo

_ADDRESS = "127.0.0.1"
_BACKEND = "phalanx-loopback"
_ASKED = "--standalone"


def keep_to_loopback(argv: Sequence[str]) -> list[str]:
    """Torchrun's words, with --standalone meaning the rendezvous of this file.

    Raises OSError where the machine has no loopback.
    """
    script = next((place for place, word in enumerate(argv) if not word.startswith("-")), len(argv))
    if _ASKED not in argv[:script]:
        return list(argv)
    from torch.distributed.elastic.rendezvous import rendezvous_handler_registry

    os.environ.pop("PET_STANDALONE", None)  # it would come before what is said here
    rendezvous_handler_registry.register(_BACKEND, _Alone)  # type: ignore[arg-type]  # torch's base class imports torch
    options = [word for word in argv[:script] if word != _ASKED]
    return [f"--rdzv-backend={_BACKEND}", f"--rdzv-endpoint={_ADDRESS}:0", "--nnodes=1", *options, *argv[script:]]


class _Alone:
    """What torch.distributed.elastic.rendezvous.RendezvousHandler asks for, of an agent that waits for no other."""

    use_agent_store = True  # it outlives a rank, so that the others can still agree

    def __init__(self, parameters: Any) -> None:
        self._run_id = str(parameters.run_id)
        self._store: Any = None

    def next_rendezvous(self) -> "RendezvousInfo":
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
        from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo

        if self._store is None:
            listener = socket.create_server((_ADDRESS, 0), backlog=1024)
            port = listener.getsockname()[1]
            self._store = TCPStore(_ADDRESS, port, is_master=True, master_listen_fd=listener.detach())
        store = PrefixStore(self._run_id, self._store)
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(_ADDRESS, self._store.port))

    def get_backend(self) -> str:
        return _BACKEND

    def get_run_id(self) -> str:
        return self._run_id

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        """There is nobody to tell."""

    def num_nodes_waiting(self) -> int:
        return 0

    def shutdown(self) -> bool:
        return True
