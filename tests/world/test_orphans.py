"""Nothing of a start outlives what started it, however early that dies."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from launch.processes import children
from launch.sweeping.slots import World
from tests.launch.command import marked
from tests.ranks import SMALL, Starter, torchrun, until
from tests.zoo.hanging import DATA


def test_ranks_end_with_a_torchrun_that_is_killed_while_they_import(tmp_path: Path) -> None:
    mark = f"MARK={tmp_path}"
    environ = {"MARK": str(tmp_path)}
    process = torchrun(2, [f"run.root={tmp_path}", *SMALL, "model=mlp"], tmp_path, environ)
    until(lambda: len(children(process.pid)) == 2)
    ranks = children(process.pid)
    until(lambda: all(b"torch" in Path(f"/proc/{rank}/maps").read_bytes() for rank in ranks))
    process.kill()
    process.communicate()
    until(lambda: not marked(mark), timeout_s=10.0)


def test_data_workers_end_with_a_rank_that_is_killed_although_they_are_stuck(starter: Starter) -> None:
    environ = {"HANG": "0 data block", "MARK": str(starter.folder)}
    run = ("run.name=r", "model=mlp", "train.steps=50", DATA, "data.workers=2")
    world = starter.start(1, *run, environ=environ)
    until(lambda: (starter.folder / "runs/r/metrics.jsonl").exists())
    until(lambda: len(marked(f"MARK={starter.folder}")) > 2)
    world.kill()
    world.wait()
    until(lambda: not marked(f"MARK={starter.folder}"), timeout_s=4.0)


def test_ranks_of_a_trial_that_lost_one_before_they_joined_are_ended() -> None:
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    world = World((waiting.pid, 1), None, {1: -signal.SIGKILL})  # type: ignore[arg-type]
    now = time.monotonic()
    world.end_left_behind(now)
    world.end_left_behind(now + 1)
    assert waiting.poll() is None, "it gets time to leave by itself"
    world.end_left_behind(now + 60)
    assert waiting.wait(5) == -signal.SIGKILL
