"""What goes wrong on one rank ends all of them, soon, with one message that names it."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from phalanx.system.process_identity import process_start
from tests.ranks import Ended, Starter, until
from tests.train.distributed.conftest import Launch
from tests.train.distributed.fault_injection import TASK, Sabotage

RUN = ("run.name=r", TASK, "model=mlp", "model.hidden=[8]", "train.steps=20", "log.every=2", "eval.every=4")


def fail(starter: Starter, ranks: int, rank: int, moment: str, act: str, *overrides: str, after: int = 0) -> Ended:
    """Let `rank` do `act`, and hold all ranks to leaving soon."""
    mark = starter.folder / "mark"
    sabotage = Sabotage(rank, moment, act, after, str(mark))
    world = starter.start(ranks, *RUN, *overrides, environ=sabotage.environ())
    until(mark.exists)
    soon_s = world.soon_s()
    ended = world.wait()
    assert time.time() - float(mark.read_text()) < soon_s
    return ended


def one_traceback(ended: Ended, rank: int, message: str) -> None:
    """`rank` alone speaks on the console: the exception with its traceback, once."""
    assert ended.outputs[rank].count("Traceback (most recent call last)") == 1
    assert ended.output.count("Traceback") == 1
    assert ended.output.count(message) == 1


def living(group: int) -> set[int]:
    """The processes of a group that still run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                found.add(int(path.parent.name))
    return found


def logs_tell(starter: Starter, ranks: int, message: str) -> None:
    for rank in range(ranks):
        assert message in (starter.folder / f"runs/r/logs/rank_{rank}.log").read_text(), rank


@pytest.mark.parametrize("ranks", [2, 3])
def test_exception_in_a_step_of_one_rank_ends_all(starter: Starter, ranks: int) -> None:
    ended = fail(starter, ranks, ranks - 1, "step", "raise", after=5)
    assert ended.codes == [1] * ranks
    one_traceback(ended, ranks - 1, "RuntimeError: the saboteur was here")
    logs_tell(starter, ranks, "the saboteur was here")
    [event] = starter.results("r").events("error")
    assert (event["rank"], event["code"], event["message"]) == (ranks - 1, 1, "RuntimeError: the saboteur was here")


def test_exception_while_building_on_one_rank_ends_all(starter: Starter) -> None:
    ended = fail(starter, 2, 1, "build", "raise")
    assert ended.codes == [1, 1]
    one_traceback(ended, 1, "RuntimeError: the saboteur was here")
    assert not (starter.folder / "runs").exists()


def test_exception_in_an_evaluation_of_one_rank_ends_all(starter: Starter) -> None:
    ended = fail(starter, 2, 0, "evaluate", "raise")
    assert ended.codes == [1, 1]
    one_traceback(ended, 0, "RuntimeError: the saboteur was here")
    logs_tell(starter, 2, "the saboteur was here")


@pytest.mark.parametrize(
    ("act", "code"), [("memory", 6), ("cpu_memory", 6), ("gpu_memory", 6), ("gpu_alloc", 6), ("exit", 1)]
)
def test_cause_decides_the_exit_code_of_all_ranks(starter: Starter, act: str, code: int) -> None:
    ended = fail(starter, 2, 1, "step", act, after=3)
    assert ended.codes == [code, code]
    assert ended.output.count("Traceback") == 1
    assert ("type a smaller train.micro_batch" in ended.output) == (code == 6)


def test_memory_error_while_building_is_out_of_memory_on_all(starter: Starter) -> None:
    ended = fail(starter, 2, 1, "build", "memory")
    assert ended.codes == [6, 6]
    one_traceback(ended, 1, "MemoryError: no room for the saboteur")


def test_giving_up_is_one_message_without_a_traceback(starter: Starter) -> None:
    ended = starter.run(2, *RUN, "optim=sgd", "optim.lr=1e38", "train.max_skips=2", "train.steps=60")
    assert ended.codes == [4, 4], ended.output
    assert ended.output.count("error: ") == 1
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(("ranks", "killed"), [(2, 1), (3, 1)])
def test_killed_rank_is_named_by_those_it_left(starter: Starter, ranks: int, killed: int) -> None:
    """The last or one in the middle."""
    ended = fail(starter, ranks, killed, "step", "kill", after=5)
    assert ended.codes == [-signal.SIGKILL if rank == killed else 1 for rank in range(ranks)]
    assert ended.output.count("is gone: it was killed") == 1
    assert f"rank {killed} on " in ended.output
    assert "Traceback" not in ended.output
    for rank in set(range(ranks)) - {killed}:
        assert "this rank cannot go on" in (starter.folder / f"runs/r/logs/rank_{rank}.log").read_text()


@pytest.mark.parametrize("ranks", [2, 3])
def test_rank_that_held_the_store_is_named_when_it_is_killed(starter: Starter, ranks: int) -> None:
    ended = fail(starter, ranks, 0, "step", "kill", after=5)
    assert ended.codes == [-signal.SIGKILL] + [1] * (ranks - 1)
    assert ended.output.count("rank 0, which holds the ranks' store, is gone") == 1
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("victim", [0, 1])
def test_rank_that_stands_still_ends_the_others_as_hung(starter: Starter, victim: int) -> None:
    sabotage = Sabotage(victim, "step", "stop", 0)  # before the other one's second look
    world = starter.start(2, *RUN, "world.timeout_s=5", environ=sabotage.environ())
    try:
        code = world.nursery.wait(world.pids[1 - victim])
        until(lambda: process_start(world.pids[victim]) is None, 20.0)  # a launcher would wait for it for half a minute
    finally:
        with suppress(ProcessLookupError):
            world.kill(victim)
    end = world.nursery.wait(world.pids[victim])
    output = world.files[1 - victim].read_text()
    assert (code, end) == (5, -signal.SIGKILL), world.files[victim].read_text() + output
    assert f"rank {victim}" in output
    assert ("did not take part in time" if victim else "does not answer") in output
    assert "Traceback" not in output


def test_one_process_fails_alike(starter: Starter) -> None:
    ended = fail(starter, 1, 0, "step", "raise", after=3)
    assert ended.codes == [1]
    one_traceback(ended, 0, "RuntimeError: the saboteur was here")


def test_one_message_tells_of_a_config_error_found_on_all_ranks(starter: Starter) -> None:
    began = time.monotonic()
    ended = starter.run(3, *RUN, "checkpoint.best_metric=beauty", "checkpoint.best_mode=max")
    assert ended.codes == [2, 2, 2]
    assert ended.output.count("error: checkpoint.best_metric=beauty") == 1
    assert ended.outputs[1:] == ["", ""]
    assert time.monotonic() - began < 60


def test_torchrun_reports_the_first_to_fail_once_and_ranks_that_it_starts_again_go_on(
    launch: Launch, starter: Starter
) -> None:
    """Every start gets seventy steps far, and its last checkpoint is ten steps old."""
    mark, root = starter.folder / "mark", starter.folder
    run = (*RUN, "checkpoint.every=20", "eval.every=100", "train.steps=180")
    environ = Sabotage(1, "step", "raise", 70, str(mark)).environ()
    began = time.time()
    process = launch(2, *run, environ=environ, options=("--max-restarts=1",))
    output, _ = process.communicate(timeout=120)
    failed = float(mark.read_text())
    assert time.time() - failed < max(3.5, failed - began)  # torchrun looks, reports and leaves
    assert process.returncode == 1
    assert output.count("RuntimeError: the saboteur was here\n") == 2, output
    ours, _, reported = output.partition("ChildFailedError")
    assert ours.count("error on rank 1") == 2
    assert reported.count("traceback : RuntimeError: the saboteur was here (rank 1; see above)") == 1
    assert starter.run(2, *run, f"run.root={root}", environ=environ).codes == [0, 0]
    events = [json.loads(line) for line in (root / "r/events.jsonl").read_text().splitlines()]
    told = [(event["event"], event["step"]) for event in events if event["event"] not in ("checkpoint", "evaluate")]
    assert [step for event, step in told if event in ("start", "resume")] == [0, 60, 120]
    assert [event for event, _ in told].count("error") == 2
    assert told[-1] == ("finish", 180)


def test_one_rank_of_torchrun_works(starter: Starter) -> None:
    """Which holds the store itself and says so."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    met = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert starter.run(1, *RUN, environ=met).codes == [0]


def test_failed_rank_leaves_no_worker_process_behind(starter: Starter) -> None:
    sabotage = Sabotage(0, "step", "raise", 5)
    pids = starter.folder / "pids"
    pids.mkdir()
    noting = ("data.train._target_=tests.train.distributed.fault_injection.Noting", "data.workers=2")
    world = starter.start(1, *RUN, *noting, environ={**sabotage.environ(), "PIDS": str(pids)})
    assert world.wait().codes == [1]
    workers = {int(path.name) for path in pids.iterdir()} - {world.pids[0]}
    assert len(workers) >= 2
    until(lambda: not workers & living(world.pids[0]), timeout_s=30.0)


def test_rank_that_finds_no_others_says_where_it_looked(starter: Starter) -> None:
    world = starter.start(2, *RUN, "world.timeout_s=2", environ=Sabotage(0, "build", "raise").environ())
    world.kill(0)
    ended = world.wait()
    assert ended.codes == [-signal.SIGKILL, 1]
    assert ended.outputs[1].count("error: rank 1 of 2 did not find the others at 127.0.0.1:") == 1
    assert "Traceback" not in ended.output


def test_interrupt_before_the_run_began_is_one_line(starter: Starter) -> None:
    (starter.folder / "mine.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = starter.run(2, *RUN, "model._target_=mine.Model", environ={"PYTHONPATH": str(starter.folder)})
    assert ended.codes == [7, 7]
    assert ended.outputs == ["interrupted before the run began\n"] * 2
