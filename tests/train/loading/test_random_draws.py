"""Samples that draw have a seed each; those that do not are spared the seeding; what is drawn for a whole batch is told."""

import logging
from typing import Any

import pytest
import torch

from phalanx.train.data.augment import ShiftRotate
from phalanx.train.data.digits import Digits
from phalanx.train.loading import fetch as room
from phalanx.train.loading import rng
from phalanx.train.loading.batch import Augment, Batch
from phalanx.train.loading.loader import Fetcher
from phalanx.train.loading.rng import Draws
from phalanx.train.loading.shard import Span
from tests.train.loading.batches import flat, source
from tests.train.loading.datasets import Numbers
from tests.zoo.datasets import DrawingBatch, DrawingList, Rows, Seldom

GENERATORS = ("python", "gauss", "numpy", "numpy_normal", "torch", "torch_normal")


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_set_that_draws_at_times_has_the_bits_of_one_fetched_sample_by_sample(generator: str) -> None:
    alone = source(Seldom(50, generator))
    one_by_one = [alone.__getitems__(Span(i, i + 1)) for i in range(100)]
    expected = {int(index): drawn for index, drawn in one_by_one[50:]}
    assert len({drawn.item() for drawn in expected.values()}) == 6, "each of the five that draw has its own number"
    fetched = source(Seldom(50, generator))
    for start in range(0, 100, 5):
        indices, drawn = fetched.__getitems__(Span(start, start + 5))
        if start >= 50:
            assert all(
                torch.equal(number, expected[int(index)][0]) for index, number in zip(indices, drawn, strict=True)
            )


def test_a_batch_is_fetched_anew_once_and_none_of_a_set_that_does_not_draw() -> None:
    seldom = Seldom(1000, "numpy")
    fetched = source(seldom)
    for start in range(0, 1000, 4):
        fetched.__getitems__(Span(start, start + 4))
    assert sum(seldom.asked.values()) in (1000, 1004)
    for calm in (Rows(50), Numbers(50)):
        assert flat(source(calm).__getitems__(Span(0, 10))) == flat(source(calm).__getitems__(Span(0, 10)))


def test_a_set_that_does_not_draw_is_seeded_once_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = source(Rows(500))
    for batch in range(2):  # the first is watched sample by sample, the second tells what comes after a seed
        fetched.__getitems__(Span(batch * 100, batch * 100 + 100))
    seeds: list[int] = []
    seed_all = rng.seed_all

    def counted(seed: int, device: torch.device) -> None:
        seeds.append(seed)
        seed_all(seed, device)

    for module in (room, rng):
        monkeypatch.setattr(module, "seed_all", counted)
    for batch in range(2, 5):
        fetched.__getitems__(Span(batch * 100, batch * 100 + 100))
    assert len(seeds) == 3


def test_lists_of_samples_that_draw_do_not_depend_on_how_they_are_split() -> None:
    whole = source(DrawingList(50)).__getitems__(Span(0, 12))
    parts = [source(DrawingList(50)).__getitems__(span) for span in (Span(0, 5), Span(5, 6), Span(6, 12))]
    for i, column in enumerate(whole):
        assert torch.equal(column, torch.cat([part[i] for part in parts]))
    assert len(whole[1].unique()) == 24


class Global(Augment):
    """Takes its chance from torch's own generator, as mixing is mostly written."""

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        return batch, torch.rand(())


@pytest.mark.parametrize(
    ("dataset", "augment", "says", "workers"),
    [
        (DrawingBatch(50), None, "DrawingBatch.__getitems__ draws from a global generator", 0),
        (DrawingBatch(50), None, "DrawingBatch.__getitems__ draws from a global generator", 1),
        (Rows(50), Global(), "Global draws from a global generator", 0),
        (Seldom(50, "torch"), Global(), "Global draws", 0),
        (DrawingList(50), None, None, 0),
        (Seldom(50, "python"), None, None, 0),
        (Digits("held_out"), ShiftRotate(2.0, 10.0), None, 0),
    ],
    ids=["batch", "batch of a worker", "augment", "both", "list", "sample", "own"],
)
def test_chance_that_depends_on_the_ranks_is_told_once(
    dataset: Any, augment: Augment | None, says: str | None, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    fetcher = Fetcher(source(dataset, augment), workers, 1, False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(fetcher.batches([Span(0, 4), Span(4, 8)]))
    assert [record.message.startswith(says or "-") for record in caplog.records] == [True] * (says is not None)
