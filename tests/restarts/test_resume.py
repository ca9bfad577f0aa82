"""A run that was killed ends with the same bits as one that was never disturbed."""

import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.compare_runs import same
from tests.ranks import Results, Starter, World, until
from tests.train.distributed.fault_injection import TASK, Sabotage

SMALL = ("model=mlp", "model.hidden=[8]", "model.dropout=0.2")
CONVNET = ("model=convnet", "model.dropout=0.2", "train.global_batch=16", "eval.every=17")
SGD = ("optim=sgd", "optim.lr=0.05", "train.clip_norm=0.5", "train.ema_decay=0.9")
# Neither lines nor evaluations fall together with checkpoints.
RUN = ("train.steps=36", "log.every=5", "checkpoint.every=7", "eval.every=11")
# What is trained on so many ranks, and who is killed: who writes, one in the middle, the last one, all at once.
KINDS: dict[int, tuple[tuple[str, ...], list[tuple[int, ...]]]] = {
    1: ((*SMALL, *SGD, "train.micro_batch=16"), [(0,)]),
    2: ((*CONVNET, "train.ema_decay=0.9"), [(0,), ()]),
    3: ((*CONVNET, "parallel.bucket_mb=0.5", "train.clip_norm=1"), [(1,), (2,)]),
    4: ((*SMALL, *SGD, "train.micro_batch=8"), [(0,), (3,)]),
}


def lines(results: Results) -> int:
    path = results.folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def kill(world: World, *ranks: int) -> None:
    world.kill(*ranks)
    ended = world.wait()
    assert -signal.SIGKILL in ended.codes, ended.output


@pytest.mark.parametrize("ranks", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_run_continues_bit_for_bit(starter: Starter, ranks: int) -> None:
    run, killings = (*RUN, *KINDS[ranks][0]), KINDS[ranks][1]
    undisturbed = starter.train(ranks, *run, name="undisturbed")
    killed = starter.results("killed")
    draw = random.Random(ranks)
    for victims in killings:
        world = starter.start(ranks, *run, "run.name=killed")
        seen = lines(killed) + draw.randint(1, 2)
        until(lambda seen=seen: lines(killed) >= seen)  # type: ignore[misc]
        kill(world, *victims)
    same(undisturbed, starter.train(ranks, *run, name="killed"))
    assert killed.summary["world_sizes"] == [ranks]


@pytest.mark.parametrize("ranks", [1, 2])
def test_run_killed_inside_its_saves_continues_bit_for_bit(starter: Starter, ranks: int) -> None:
    run = (*RUN, *SMALL, TASK, "checkpoint.every=3", "checkpoint.keep=1")
    undisturbed = starter.train(ranks, *run, name="undisturbed")
    moments = [("write", 0), ("write", 4), ("commit", 1), ("delete", 0), ("empty", 1)]
    for moment, after in moments:
        sabotage = Sabotage(0, moment, "kill", after)
        ended = starter.run(ranks, *run, "run.name=killed", environ=sabotage.environ())
        assert ended.codes[0] == -signal.SIGKILL, (moment, ended.output)
    same(undisturbed, starter.train(ranks, *run, name="killed"))
    assert killed_and_whole(starter)


def killed_and_whole(starter: Starter) -> bool:
    """Whether both runs keep the same checkpoints and nothing else beside them."""
    kept = [
        {path.name for path in starter.folder.glob(f"runs/{run}/checkpoints/*")} for run in ("killed", "undisturbed")
    ]
    return kept[0] == kept[1]


def test_run_killed_after_its_last_save_tidies_up_when_it_is_finished(starter: Starter) -> None:
    run = (*RUN, *SMALL, TASK, "checkpoint.keep=1", "checkpoint.best_metric=null", "train.steps=14")
    undisturbed = starter.train(1, *run, name="undisturbed")
    ended = starter.run(1, *run, "run.name=killed", environ=Sabotage(0, "delete", "kill", 0).environ())
    assert ended.codes == [-signal.SIGKILL]
    same(undisturbed, starter.train(1, *run, name="killed"))
    assert killed_and_whole(starter)


def test_what_each_rank_remembers_of_compression_continues_bit_for_bit(starter: Starter) -> None:
    powersgd = ("parallel.comm_hook=powersgd", "parallel.powersgd_start=2", "model=mlp", "model.hidden=[32]")
    run = (*RUN, *powersgd, TASK, "train.steps=20")
    undisturbed = starter.train(2, *run, name="undisturbed")
    for rank, moment in ((1, "write"), (1, "step")):  # the second after the save at step 7
        sabotage = Sabotage(rank, moment, "kill", 0 if moment == "write" else 10)
        ended = starter.run(2, *run, "run.name=killed", environ=sabotage.environ())
        assert ended.codes[rank] == -signal.SIGKILL
    same(undisturbed, starter.train(2, *run, name="killed"))


def test_when_it_is_saved_changes_nothing(starter: Starter) -> None:
    run = (*RUN, *SMALL, *SGD)
    by_steps = starter.train(2, *run, name="by_steps")
    by_time = (*run, "checkpoint.every=null", "checkpoint.every_s=0.001", "log.every=5", "run.name=by_time")
    results = starter.results("by_time")
    world = starter.start(2, *by_time)
    until(lambda: lines(results) >= 3 and bool(results.events("checkpoint")))
    kill(world)
    same(by_steps, starter.train(2, *by_time, name="by_time"))
    assert len(results.events("checkpoint")) > 4


def test_run_continues_on_other_numbers_of_ranks_with_the_same_batches(starter: Starter) -> None:
    run = (*RUN, *SMALL, TASK, "train.micro_batch=8", "train.precision=fp64", "train.ema_decay=0.9")
    undisturbed = starter.train(2, *run, name="undisturbed")
    for ranks, forwards in ((3, 3), (1, 8)):  # of rank 0 a step
        sabotage = Sabotage(0, "step", "kill", 1 + 9 * forwards)
        ended = starter.run(ranks, *run, "run.name=moved", environ=sabotage.environ())
        assert ended.codes[0] == -signal.SIGKILL
    moved = starter.train(2, *run, name="moved")
    assert [event["step"] for event in moved.events("resume")] == [7, 14]
    assert moved.summary["world_sizes"] == [1, 2, 3]
    for one, other in zip(undisturbed.metrics(), moved.metrics(), strict=True):
        assert one["step"] == other["step"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
    one, other = undisturbed.weights(), moved.weights()
    distance = sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5
    assert distance < 1e-12


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_run_killed_at_random_for_minutes_continues_bit_for_bit(starter: Starter, ranks: int) -> None:
    """Any rank or all, at any moment, also while a checkpoint of some MiB is being written."""
    run = ("train.steps=400", "log.every=7", "eval.every=50", "checkpoint.every=5", "model=mlp", "model.hidden=[800]")
    alone = "world.timeout_s=10"  # when rank 0 dies before it opened the store, the others wait for it
    undisturbed = starter.train(ranks, *run, name="undisturbed")
    checkpoints = starter.results("killed").folder / "checkpoints"
    draw = random.Random(ranks)
    kills = 0
    while kills < 200:
        world = starter.start(ranks, *run, alone, "run.name=killed")
        instant = draw.choice(["staging", "manifest", "line", "start"])
        seen = lines(starter.results("killed")) + draw.randint(1, 3)
        ends: dict[str, Callable[[], bool]] = {
            "staging": lambda: is_there(checkpoints, ".step_*.staging/model.safetensors"),
            "manifest": lambda: is_there(checkpoints, ".step_*.staging/.manifest*"),
            "line": lambda: False,
            "start": lambda: draw.random() < 0.001,
        }
        # At the latest some lines on, as a save may be over before anybody has looked.
        until(lambda: ends[instant]() or lines(starter.results("killed")) >= seen or all(map(gone, world.pids)))  # noqa: B023
        victims = draw.choice([(), (draw.randrange(ranks),)])
        for rank in victims or range(ranks):
            with suppress(ProcessLookupError):
                world.kill(rank)
        if world.wait().codes == [0] * ranks:
            break
        kills += 1
    assert kills > 20
    same(undisturbed, starter.train(ranks, *run, name="killed"))


def is_there(folder: Path, pattern: str) -> bool:
    """Whether a file is there, in folders that come and go while they are looked through."""
    with suppress(FileNotFoundError):
        return any(folder.glob(pattern))
    return False


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()
