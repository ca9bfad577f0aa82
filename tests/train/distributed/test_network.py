"""Ranks on one machine speak over the loopback alone, and those of several by the network on which they are reached."""

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from phalanx.exit.rank_env import RankEnv
from phalanx.train.distributed.network import choose_network
from tests.ranks import Starter, until
from tests.train.distributed.fault_injection import TASK, Sabotage

RUN = ("run.name=r", TASK, "model=mlp", "model.hidden=[8]", "train.steps=20", "world.timeout_s=5")
_ACCEPTS = 0x10000  # flag in /proc/net/unix


def listening(pid: int) -> set[str]:
    """What a process listens on: hexadecimal addresses, as in /proc/net/tcp, and names of Unix sockets."""
    links = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink())
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    names = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                names.add(local.partition(":")[0])
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = line.split()
        if int(flags, 16) & _ACCEPTS and inode in inodes:
            names.add("".join(path))
    return names


def test_ranks_on_one_machine_listen_on_the_loopback_alone(starter: Starter) -> None:
    mark = starter.folder / "mark"
    world = starter.start(2, *RUN, environ=Sabotage(1, "step", "stop", 2, str(mark)).environ())
    try:
        until(mark.exists)
        found = [listening(pid) for pid in world.pids]
    finally:
        world.kill()
        world.wait()
    assert found == [{"0100007F"}, {"0100007F"}]


def outside() -> str:
    """The address of this machine that others see, or the loopback's where it has none. Nothing is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


@pytest.mark.parametrize("head", ["127.0.1.1", "the head itself"])
def test_gloo_listens_where_the_other_machines_are(monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    """Also on the head, whose own name Debian has at 127.0.1.1; what the user set holds."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "users")
    address = outside()
    rank_env = RankEnv(0, 2, 0, 1, 0, True, head if head[0] == "1" else address, 29500, hosted=True)
    store = HashStore()
    store.set("network/1", address)
    choose_network(store, rank_env)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "users"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    choose_network(store, rank_env)
    chosen = os.environ["GLOO_SOCKET_IFNAME"]
    assert chosen in [name for _, name in socket.if_nameindex()]
    assert chosen.startswith("lo") == address.startswith("127.")
