"""Choose the network interface for gloo between machines."""

import fcntl
import os
import socket
import struct
from contextlib import suppress
from ipaddress import ip_address

from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.exit.rank_env import RankEnv

_SIOCGIFADDR = 0x8915
_VARIABLE = "GLOO_SOCKET_IFNAME"


def choose_network(store: Store, rank_env: RankEnv) -> None:
    """Set GLOO_SOCKET_IFNAME to the interface that reaches the other machines, unless set. All ranks call it before gloo
    starts. By default gloo takes the address of the host name, which on Debian is 127.0.1.1.
    """
    if rank_env.one_machine or _VARIABLE in os.environ:
        return
    own = _address_towards(rank_env.address, rank_env.port)
    store.set(f"network/{rank_env.rank}", own)
    if _is_loopback(own):  # the machine that has the store is told by the others how it is reached
        others = (store.get(f"network/{rank}").decode() for rank in range(rank_env.size))
        own = next((_address_towards(other, rank_env.port) for other in others if not _is_loopback(other)), own)
    if (name := _interface(own)) is not None:
        os.environ[_VARIABLE] = name


def _address_towards(host: str, port: int) -> str:
    """The address of this machine from which it reaches another. Nothing is sent."""
    with suppress(OSError):
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback


def _interface(address: str) -> str | None:
    """The name of the interface that has an IPv4 address; None where none has, or it is of IPv6."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an address
                found = fcntl.ioctl(asked, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
