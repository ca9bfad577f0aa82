"""Ranks on one machine speak over the loopback alone."""

import os
import re
from pathlib import Path

from tests.ranks import Starter, until
from tests.world.saboteur import TASK, Sabotage

RUN = ("run.name=r", TASK, "model=mlp", "model.hidden=[8]", "train.steps=20", "world.timeout_s=5")


def listening(pid: int) -> set[str]:
    """Hexadecimal addresses, as in /proc/net/tcp, that a process listens on."""
    links = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink())
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                addresses.add(local.partition(":")[0])
    return addresses


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
