"""From positions to a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from phalanx.exit.codes import ConfigError
from phalanx.train.data.images import Images, ImagesInMemory
from phalanx.train.loading.collation import UserCollation
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import Order
from phalanx.train.loading.shard import Span
from tests.train.loading.batches import flat, source
from tests.train.loading.datasets import Batched, Dice, DiceByBatch, Listed, Numbers, journal_lines

SPANS = [Span(0, 8), Span(45, 55), Span(1000, 1001)]


@pytest.mark.parametrize("kind", [Batched, Listed])
def test_a_data_set_that_answers_batches_is_asked_once_a_batch(kind: type[Numbers], tmp_path: Path) -> None:
    asked = source(kind(50, tmp_path / "journal"))
    for span in SPANS:
        asked.__getitems__(span)
    order = Order(50, 5)
    assert journal_lines(tmp_path / "journal") == [order.indices(*span).tolist() for span in SPANS]


def test_arrays_become_tensors_and_lists_are_put_together() -> None:
    expected = torch.from_numpy(Order(50, 5).indices(3, 9))
    assert flat(source(Batched(50)).__getitems__(Span(3, 9))) == flat((expected, {"twice": 2 * expected}))
    assert flat(source(Listed(50)).__getitems__(Span(3, 9))) == flat(expected)
    assert flat(source(Numbers(50)).__getitems__(Span(3, 9))) == flat(expected)


@pytest.mark.parametrize(
    "within", [lambda whole: whole, lambda whole: Subset(whole, range(50))], ids=["itself", "subset"]
)
def test_a_set_that_answers_batches_gives_its_samples_to_a_collate(
    within: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the digits do, which have both."""
    images = Images(np.zeros((50, 1, 1), np.uint8), np.arange(50), 0.0, 1.0)
    kept = UserCollation(lambda samples: {"seen": torch.stack([label for _, label in samples])}, "data.collate")
    asked = PositionDataset(within(images), Order(50, 5), None, 5, kept)
    for span in SPANS:
        assert flat(asked.__getitems__(span)) == flat({"seen": torch.from_numpy(Order(50, 5).indices(*span))})
    monkeypatch.delattr(ImagesInMemory, "__getitem__")
    with pytest.raises(ConfigError, match=r"data.collate .* has nothing to do"):
        PositionDataset(within(images), Order(50, 5), None, 5, kept).__getitems__(SPANS[0])


def test_a_list_that_is_no_list_of_samples_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Listed.__getitems__ answered 6 indices with a list of 5.*a tuple"):
        source(Listed(50, lacking=1)).__getitems__(Span(0, 6))


@pytest.mark.parametrize("dataset", [Dice(), Subset(Dice(), range(50)), ConcatDataset([Dice()])])
def test_a_random_sample_depends_on_its_position_alone(dataset: Dataset[object]) -> None:
    """Not on the batch it is fetched in, nor on what was drawn before."""
    whole = source(dataset).__getitems__(Span(40, 60))
    torch.manual_seed(1)
    asked = source(dataset)
    parts = [asked.__getitems__(span) for span in (Span(55, 60), Span(40, 41), Span(41, 55))]
    for i, column in enumerate(whole):
        assert torch.equal(column, torch.cat([parts[1][i], parts[2][i], parts[0][i]]))
    seen = whole[1].tolist()
    assert len(set(seen)) == len(seen)


def test_a_random_batch_depends_on_its_position_alone() -> None:
    torch.manual_seed(1)
    once = source(DiceByBatch()).__getitems__(Span(40, 60))
    torch.manual_seed(2)
    again = source(DiceByBatch())
    again.__getitems__(Span(0, 40))
    assert flat(once) == flat(again.__getitems__(Span(40, 60)))


def test_the_seed_decides_order_and_chance() -> None:
    one, other = (source(Dice(), seed=seed).__getitems__(Span(0, 20)) for seed in (0, 1))
    assert not torch.equal(one[0], other[0])
    assert not torch.isin(one[1], other[1]).any()
