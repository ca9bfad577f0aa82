"""Who hangs is named, by what it does and since when, and nobody is ended for being slow alone."""

import json
import signal
import time

import pytest

from tests.ranks import Starter
from tests.zoo.hanging import DATA, MODEL, TASK

TIMEOUT_S = 5.0  # which no step takes, however busy the machine is
RUN = ("run.name=r", "model=mlp", "model.hidden=[8]", "train.steps=20", "log.every=2", "eval.every=4")


def named(starter: Starter, ranks: int, rank: int, phase: str, how: str, *words: str, place: str | None = None) -> None:
    """All ranks end with code 5, and the event, the cause and the message speak of `rank` alone."""
    cause = starter.folder / "cause"
    environ = {"HANG": f"{rank} {place or phase} {how}", "PHALANX_CAUSE_FILE": str(cause)}
    world = starter.start(ranks, *RUN, f"world.timeout_s={TIMEOUT_S}", *words, environ=environ)
    others = [pid for other, pid in enumerate(world.pids) if other != rank or how != "stop"]
    codes = [world.nursery.wait(pid) for pid in others]
    if how == "stop":
        assert world.nursery.wait(world.pids[rank]) == -signal.SIGKILL, "whoever names it ends it"
    output = "".join(file.read_text() for file in world.files)
    assert codes == [5] * len(others), output
    [hang] = starter.results("r").events("hang")
    assert hang["rank"] == rank, output
    assert hang["phase"] == phase or how == "stop", output  # as it said last
    assert hang["waiting"] == [other for other in range(ranks) if other != rank]
    assert TIMEOUT_S * 0.9 <= hang["since_s"] < 6 * TIMEOUT_S
    assert f"rank {rank} on {hang['host']} did not take part in time: it is in {hang['phase']} of step" in output
    assert "Traceback" not in output
    told = json.loads(cause.read_text())
    assert (told["code"], told["rank"]) == (5, rank)
    if how in ("loop", "poll"):
        assert any("hanging.py" in line and f"_{how}" in line for line in hang["stack"])


@pytest.mark.parametrize(
    ("ranks", "rank", "phase", "how", "words"),
    [
        (2, 1, "forward", "poll", (TASK,)),
        (3, 1, "forward", "collective", (TASK,)),
        (2, 0, "forward", "stop", (TASK,)),
        (1, 0, "data", "sleep", (DATA, "data.workers=2")),
    ],
)
def test_rank_that_hangs_is_named(
    starter: Starter, ranks: int, rank: int, phase: str, how: str, words: tuple[str, ...]
) -> None:
    named(starter, ranks, rank, phase, how, *words)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("phase", "how", "words"),
    [
        ("forward", "loop", (TASK,)),
        ("forward", "lock", (TASK,)),
        ("forward", "stop", (TASK,)),
        ("forward", "collective", (TASK,)),
        ("evaluate", "loop", (TASK, "eval.batch=64")),
        ("evaluate", "stop", (TASK, "eval.batch=64")),
        ("evaluate", "collective", (TASK, "eval.batch=64")),
        ("data", "loop", (DATA,)),
        ("data", "queue", (DATA,)),
        ("data", "stop", (DATA,)),
        ("data", "sleep", (DATA, "data.workers=1")),
    ],
)
def test_each_kind_of_hang_is_named(starter: Starter, rank: int, phase: str, how: str, words: tuple[str, ...]) -> None:
    named(starter, 2, rank, phase, how, *words)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["forward", "evaluate"])
def test_world_of_one_that_hangs_ends(starter: Starter, phase: str) -> None:
    named(starter, 1, 0, phase, "loop", TASK, "eval.batch=64")


@pytest.mark.slow
def test_save_that_comes_to_no_end_is_named(starter: Starter) -> None:
    environ = {"HANG": "0 state sleep"}
    ended = starter.run(2, *RUN, *MODEL, "checkpoint.every=5", "world.timeout_s=1", environ=environ)
    assert ended.codes == [5, 5]
    [hang] = starter.results("r").events("hang")
    assert (hang["rank"], hang["phase"]) == (0, "checkpoint")


def test_what_one_rank_does_alone_may_take_longer_than_a_collective(starter: Starter) -> None:
    """Rank 0 is asked for the model's state in a save, and takes more than twice as long as a collective may."""
    began = time.monotonic()
    environ = {"HANG": "0 state slow"}
    ended = starter.run(2, *RUN, *MODEL, "checkpoint.every=5", "world.timeout_s=3", environ=environ)
    assert ended.codes == [0, 0], ended.output
    assert time.monotonic() - began > 7
