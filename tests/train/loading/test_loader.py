"""The work of each rank, from any step on."""

from pathlib import Path
from typing import Any

import pytest

from phalanx.train.loading.loader import Timeline
from phalanx.train.loading.order import Order
from phalanx.train.loading.shard import Span
from tests.train.loading.batches import flat, loader, source, told
from tests.train.loading.datasets import Dice, Numbers, journal_lines

pytestmark = pytest.mark.xdist_group("data workers")  # they share a fork server, which imports torch

PLAIN = Timeline(
    step=0, position=0, steps=9, end=140, global_batch=16
)  # 50 samples: the last batch, of 12, ends epoch 3


@pytest.mark.parametrize("workers", [0, 2])
def test_from_any_step_it_is_the_tail_of_the_whole(workers: int) -> None:
    whole = told(loader(Dice(), PLAIN, micro_batch=4).from_step(0))
    assert len(whole) == 9
    for first in (0, 1, 5, 8, 9):
        assert told(loader(Dice(), PLAIN, micro_batch=4, workers=workers).from_step(first)) == whole[first:]


@pytest.mark.parametrize("micro_batch", [4, None])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_ranks_together_do_what_one_does(micro_batch: int | None, size: int) -> None:
    alone = told(loader(Numbers(50), PLAIN).from_step(0))
    ranks = [
        told(loader(Numbers(50), PLAIN, micro_batch=micro_batch, rank=r, size=size).from_step(3)) for r in range(size)
    ]
    for step, *shares in zip(alone[3:], *ranks, strict=True):
        assert all(share[:2] == step[:2] for share in shares)
        pieces = [piece for share in shares for piece in share[2]]
        assert [number for _, (_, _, numbers) in pieces for number in numbers] == step[2][0][1][2]
        starts = [step[2][0][0] + sum(piece[1][1][0] for piece in pieces[:i]) for i in range(len(pieces))]
        assert [position for position, _ in pieces] == starts


def test_a_fixed_micro_batch_is_the_same_work_on_any_number_of_ranks() -> None:
    alone = told(loader(Dice(), PLAIN, micro_batch=4).from_step(0))
    for size in (2, 3, 4):
        ranks = [told(loader(Dice(), PLAIN, micro_batch=4, rank=r, size=size).from_step(0)) for r in range(size)]
        for step, *shares in zip(alone, *ranks, strict=True):
            assert [piece for share in shares for piece in share[2]] == step[2]


def test_nothing_is_fetched_before_the_step_it_begins_with(tmp_path: Path) -> None:
    works = loader(Numbers(50, tmp_path / "journal"), PLAIN).from_step(4)
    assert not (tmp_path / "journal").exists()
    next(works)
    assert [i for (i,) in journal_lines(tmp_path / "journal")] == Order(50, 5).indices(64, 80).tolist()


def test_workers_too_fetch_nothing_before_and_nothing_twice(tmp_path: Path) -> None:
    list(loader(Numbers(50, tmp_path / "journal"), PLAIN, workers=2).from_step(4))
    assert sorted(i for (i,) in journal_lines(tmp_path / "journal")) == sorted(Order(50, 5).indices(64, 140).tolist())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_batch_is_a_micro_batch_such_as_will_come(workers: int, tmp_path: Path) -> None:
    """Even where the whole run is shorter than a batch, and as many samples on each rank; one alone where one will come."""
    short = Timeline(step=0, position=0, steps=1, end=2, global_batch=16)
    for rank, (start, stop) in enumerate([(0, 5), (6, 11), (11, 16)]):
        made = loader(Numbers(50, tmp_path / f"{rank}"), short, rank=rank, size=3, workers=workers).sample_batch()
        assert made.span == (start, stop)
        assert flat(made.batch) == flat(source(Numbers(50)).__getitems__(Span(start, stop)))
        assert flat(made.single) == flat(source(Numbers(50)).__getitems__(Span(0, 1)))
        assert len(journal_lines(tmp_path / f"{rank}")) == stop - start + 1


@pytest.mark.parametrize(
    ("timeline", "spans"),
    [
        (Timeline(0, 0, 3, 12, 4), [(0, 4), (4, 8), (8, 12)]),
        (Timeline(0, 0, 3, 9, 4), [(0, 4), (4, 8), (8, 9)]),
        (Timeline(3, 9, 5, 15, 4), [(9, 13), (13, 15)]),  # a finished run, extended, with a batch of another size
    ],
)
def test_the_timeline_goes_from_where_it_begins_to_its_end(timeline: Timeline, spans: list[Any]) -> None:
    assert [timeline.span(step) for step in range(timeline.step, timeline.steps)] == spans
