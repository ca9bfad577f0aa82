"""A run that was killed ends with the same bits as one that was never disturbed."""

import random
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.ranks import Results, Starter, until

RUN = ("train.steps=40", "checkpoint.every=7", "eval.every=10", "model.dropout=0.2")


def has_lines(file: Path, count: int) -> bool:
    return file.exists() and file.read_text().count("\n") >= count


def same(one: Results, other: Results) -> None:
    assert one.sha256 == other.sha256
    assert one.timeless() == other.timeless()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_killed_run_continues_bit_for_bit(starter: Starter, ranks: int) -> None:
    undisturbed = starter.train(ranks, *RUN, name="undisturbed")
    draw = random.Random(ranks)
    for victim in (*range(ranks), None):
        world = starter.start(ranks, *RUN, "run.name=killed")
        metrics = starter.results("killed").folder / "metrics.jsonl"
        before = metrics.read_text().count("\n") if metrics.exists() else 0
        lines = before + draw.randint(1, 2)
        until(partial(has_lines, metrics, lines))
        world.kill(*(() if victim is None else (victim,)))
        ended = world.wait()
        assert -signal.SIGKILL in ended.codes, ended.output
    ended = starter.run(ranks, *RUN, "run.name=killed")
    assert ended.codes == [0] * ranks, ended.output
    same(undisturbed, starter.results("killed"))
