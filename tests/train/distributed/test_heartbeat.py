"""What is read out of the stack of a rank that hangs."""

from phalanx.system.module_path import PACKAGE
from phalanx.train.distributed.heartbeat import Heartbeat, users_line


def test_a_package_whose_path_begins_like_ours_is_the_users() -> None:
    users = f"{PACKAGE}_of_mine/net.py:7 in forward"
    stack = ("/home/me/other.py:1 in train", users, f"{PACKAGE}/train/engine/step.py:9 in backward")
    heartbeat = Heartbeat(1, "forward", 3, 9.0, False, (), stack, "host", "machine", 1, 1)
    assert users_line(heartbeat) == users
