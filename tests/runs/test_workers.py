"""Whole runs whose batches are fetched by worker processes."""

import signal
from pathlib import Path

import pytest

from phalanx.system import cpu_count
from tests.ranks import Starter, until
from tests.runs.random_user_code import overrides

RUN = (*overrides(), "train.steps=24", "eval.every=8", "checkpoint.every=8", "eval.batch=16")


def below(folder: Path) -> list[str]:
    """Command lines of living processes that work in `folder`, as all that a rank started do."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and "Z" not in (process / "stat").read_text().rpartition(")")[2][
                :3
            ]:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_workers_change_no_bit_also_over_a_kill(starter: Starter) -> None:
    """On one rank, as each begins workers of its own, and what they do is the same on any."""
    plain = starter.train(1, *RUN, name="plain")
    with_workers = (*RUN, "data.workers=2", "data.prefetch=1", "run.name=workers")
    world = starter.start(1, *with_workers)
    metrics = starter.results("workers").folder / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2)
    world.kill()
    world.wait()
    ended = starter.run(1, *with_workers)
    assert ended.codes == [0], ended.output
    results = starter.results("workers")
    assert results.sha256 == plain.sha256
    assert results.timeless() == plain.timeless()
    until(lambda: not below(starter.folder))


@pytest.mark.parametrize(("ranks", "workers"), [(2, 0), (1, 2)])
def test_a_sample_that_cannot_be_read_ends_the_run_with_its_traceback(
    starter: Starter, ranks: int, workers: int
) -> None:
    ended = starter.run(ranks, *RUN, *overrides(broken=7)[5:6], f"data.workers={workers}")
    assert ended.codes == [1] * ranks, ended.output
    assert "in __getitem__" in ended.output
    assert "OSError" in ended.output
    assert "sample 7 is broken" in ended.output
    until(lambda: not below(starter.folder))


def test_a_killed_worker_ends_the_run_and_is_named(starter: Starter) -> None:
    workers = cpu_count.available() + 1
    ended = starter.run(1, *RUN, *overrides(deadly=7)[5:6], f"data.workers={workers}")
    assert ended.codes == [1], ended.output
    assert f"WARNING: {workers} data workers share {workers - 1} CPUs here" in ended.output
    assert ended.output.count("WARNING") == 1, "torch has another"
    assert f"was ended by {signal.SIGKILL.name}" in ended.output
    until(lambda: not below(starter.folder))
