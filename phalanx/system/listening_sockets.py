"""List the TCP addresses at which processes listen, from /proc/net/tcp."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

_LISTENS = "0A"


def listening_addresses(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The TCP addresses and ports at which any of these processes listens."""
    return {at for pid in pids for at in _of(pid)}


def non_loopback_addresses(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Those of them that other machines may reach; none where the kernel does not tell."""
    return {(address, port) for address, port in listening_addresses(pids) if not ip_address(address).is_loopback}


def _of(pid: int) -> Iterator[tuple[str, int]]:
    """Of one process; a container has a table of its own."""
    owned = _sockets(pid)
    for name in ("tcp", "tcp6") if owned else ():
        yield from (at for inode, at in _listeners(Path(f"/proc/{pid}/net") / name) if inode in owned)


def _sockets(pid: int) -> list[int]:
    found = []
    with suppress(OSError):  # ended meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if named := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                    found.append(int(named[1]))
    return found


def _listeners(table: Path) -> Iterator[tuple[int, tuple[str, int]]]:
    text = ""
    with suppress(OSError):
        text = table.read_text()
    for line in text.splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == _LISTENS:
            address, port = local.split(":")
            yield int(inode), (_address(address), int(port, 16))


def _address(text: str) -> str:
    """The kernel writes words of 32 bits in the machine's own order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    found = ip_address(b"".join(words))
    return str(getattr(found, "ipv4_mapped", None) or found)
