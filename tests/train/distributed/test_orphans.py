"""Nothing of a start outlives what started it, however early that dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from phalanx.launch.host.processes import children
from phalanx.launch.sweep.workers import RankGroup
from phalanx.system.process_identity import process_start
from phalanx.train.distributed.watchdog import Watchdog
from tests.launch.command import marked
from tests.ranks import QUIET, ROOT, SMALL, Starter, free_port, rank_variables, torchrun, until
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
    run = ("run.name=r", "model=mlp", "train.steps=50", DATA, "data.workers=2")
    hung = starter.folder / "hung"
    hung.mkdir()
    world = starter.start(1, *run, environ={"HANG": "0 data block", "HUNG": str(hung)})
    until(lambda: any(hung.iterdir()))
    began = {pid: process_start(pid) for pid in below(world.pids[0])}
    assert began.keys() > {int(worker.name) for worker in hung.iterdir()}
    world.kill()
    world.wait()
    until(lambda: not any(process_start(pid) == start for pid, start in began.items()), timeout_s=30.0)


def below(pid: int) -> list[int]:
    return [*children(pid), *(found for child in children(pid) for found in below(child))]


# Numbers of processes mean something else there, as on another machine; an unprivileged user may have one of his own.
ELSEWHERE = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--pid", "--fork", "--kill-child")


@pytest.mark.parametrize("there", [(), ELSEWHERE], ids=["here", "on another machine"])
def test_a_rank_that_dies_while_it_joins_ends_the_others_in_seconds(starter: Starter, there: Sequence[str]) -> None:
    if subprocess.run([*there, "true"], capture_output=True).returncode != 0:
        pytest.skip("the system lets no user have numbers of processes of his own")
    port = free_port()
    alone = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    dying = [*there, sys.executable, "-m", "tests.train.distributed.joining_rank"]
    environ = {**os.environ, **QUIET, **rank_variables(1, 3, port), **alone}
    with subprocess.Popen(dying, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True) as rank:
        world = starter.start(3, "model=mlp", "world.device=cpu", environ=alone, port=port, absent=1)
        assert rank.stdout is not None
        assert rank.stdout.readline() == "joining\n"
        rank.kill()
        ended = world.wait()
    assert ended.codes == [1, 1], ended.output
    assert "error: rank 1 on " in ended.outputs[0]
    assert "is gone: it ended before the ranks had joined" in ended.outputs[0]
    assert "Traceback" not in ended.output


def test_ranks_that_are_heard_of_while_others_are_looked_at_disturb_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are heard of in another thread, and each look at a process gives it a chance."""
    watch = Watchdog(0, 4, 600.0, None)
    watch.close()
    watch.join()

    def began_meanwhile(pid: int) -> int | None:
        watch._exchange._note(3, watch._exchange._own)
        return process_start(pid)

    monkeypatch.setattr("phalanx.train.distributed.watchdog.process_start", began_meanwhile)
    for rank in (1, 2):
        watch._exchange._note(rank, watch._exchange._own)
    assert watch._gone() is None


def test_a_rank_that_left_because_of_a_silent_one_is_not_taken_for_the_first_to_go() -> None:
    """Rank 1, on another machine, is silent; rank 2, on this one, has noticed before rank 0 and is gone."""
    watch = Watchdog(0, 3, 600.0, None)
    watch.close()
    watch.join()
    own = watch._exchange._own
    there, ended = replace(own, machine="another", phase="join"), replace(own, began=-1)
    for heard_s, expected in ((-9.5, 1), (-1.0, 2)):
        watch._exchange._found = {
            2: (ended, watch._exchange.answered_s),
            1: (there, watch._exchange.answered_s + heard_s),
        }
        assert watch._gone() == expected


def test_ranks_of_a_trial_that_lost_one_before_they_joined_are_ended() -> None:
    waiting = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    world = RankGroup((waiting.pid, 1), None, {1: -signal.SIGKILL})  # type: ignore[arg-type]
    now = time.monotonic()
    world.end_left_behind(now)
    world.end_left_behind(now + 1)
    assert waiting.poll() is None, "it gets time to leave by itself"
    world.end_left_behind(now + 60)
    assert waiting.wait(5) == -signal.SIGKILL
