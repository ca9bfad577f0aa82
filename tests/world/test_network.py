"""Ranks on one machine speak over the loopback alone."""

import os
import re
from pathlib import Path

from tests.ranks import Starter, until
from tests.world.saboteur import TASK, Sabotage

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
