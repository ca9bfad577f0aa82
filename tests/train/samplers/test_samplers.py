"""Samplers: any part of their sequence at once, the frequencies that were asked for, and what they refuse."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset
from torch.utils.data import Subset as Part

from phalanx.exit.codes import ConfigError
from phalanx.samplers import Buckets, Repeated, Sampled, Sampler, Subset, Weighted
from phalanx.train.loading.order import Order, Positions
from phalanx.train.samplers.sampler import set_up
from phalanx.train.samplers.whole_batches import WholeBatches

SAMPLES, BATCH = 103, 8


class Words(Dataset[int]):
    """103 samples, of which a tenth are of class 1, with lengths from 1 to 90."""

    def __init__(self) -> None:
        draw = np.random.default_rng(1)
        self.labels = (np.arange(SAMPLES) % 10 == 3).astype(np.int64)
        self.lengths = draw.integers(1, 91, SAMPLES).tolist()
        self.names = ["a"] * SAMPLES
        self.importance = torch.arange(SAMPLES, dtype=torch.float32) % 4

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> int:
        return int(self.lengths[index])


def made(sampler: Sampler, dataset: Any = None, drop_last: bool = False, batch: int = BATCH) -> tuple[Positions, int]:
    data = dataset or Words()
    order, epoch = set_up(sampler, Sampled(data, len(data), 5, batch, drop_last))
    if not drop_last:
        return order, epoch
    whole = WholeBatches(order, epoch, batch)
    return whole, whole.epoch


KINDS: dict[str, tuple[Any, int]] = {
    "weighted": (lambda: Weighted("balance"), SAMPLES),
    "weighted of another length": (lambda: Weighted("importance", samples=40), 40),
    "buckets": (lambda: Buckets("lengths", pool=3), SAMPLES),
    "subset": (lambda: Subset(list(range(0, 100, 3))), 34),
    "slice": (lambda: Subset("10:60"), 50),
    "repeated": (lambda: Repeated(3), 3 * SAMPLES),
}


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_any_part_of_the_sequence_is_what_it_is_in_the_whole(kind: str, drop_last: bool) -> None:
    """Whatever was asked before: so it is the same for any rank, worker and restart."""
    make, of_epoch = KINDS[kind]
    order, epoch = made(make(), drop_last=drop_last)
    assert epoch == (of_epoch - of_epoch % BATCH if drop_last else of_epoch)
    whole = order.indices(0, 5 * epoch)
    assert whole.dtype == np.int64
    assert len(whole) == 5 * epoch
    for start, stop in ((4 * epoch + 3, 5 * epoch), (0, 1), (epoch - 2, epoch + 2), (3 * epoch, 3 * epoch + 8), (7, 7)):
        assert made(make(), drop_last=drop_last)[0].indices(start, stop).tolist() == whole[start:stop].tolist()
        assert order.indices(start, stop).tolist() == whole[start:stop].tolist()
    assert whole[:epoch].tolist() != whole[epoch : 2 * epoch].tolist(), "each epoch is another"


@pytest.mark.parametrize("kind", ["buckets", "subset", "slice", "repeated"])
def test_an_epoch_has_every_chosen_sample_as_often_as_asked(kind: str) -> None:
    make, epoch = KINDS[kind]
    order, _ = made(make())
    chosen = {"subset": range(0, 100, 3), "slice": range(10, 60)}.get(kind, range(SAMPLES))
    times = 3 if kind == "repeated" else 1
    for number in range(3):
        found = Counter(order.indices(number * epoch, (number + 1) * epoch).tolist())
        assert found == {index: times for index in chosen}


def test_a_dropped_rest_is_another_one_each_epoch() -> None:
    order, epoch = made(Subset("0:43"), drop_last=True)
    epochs = [set(order.indices(number * epoch, (number + 1) * epoch).tolist()) for number in range(4)]
    assert {len(found) for found in epochs} == {40}
    assert len(set.union(*epochs)) == 43
    with pytest.raises(
        ConfigError, match=r"data.drop_last=true leaves nothing of an epoch of 5 samples.*global_batch=5"
    ):
        made(Subset("0:5"), drop_last=True)


def test_weighted_draws_have_the_frequencies_asked_for() -> None:
    """By Pearson's chi-square, whose mean is its degrees of freedom: six deviations of it are one in a billion."""
    weights = [0.0, 1.0, 2.5, 0.5, 7.0, 0.0]
    draws = 200_000
    order, _ = made(Weighted(weights), Part(Words(), range(6)))
    found = np.bincount(order.indices(0, draws), minlength=6)
    expected = draws * np.array(weights) / sum(weights)
    there = expected > 0
    assert not found[~there].any()
    chi_square = (np.square(found - expected)[there] / expected[there]).sum()
    assert chi_square < 3 + 6 * math.sqrt(2 * 3)
    pairs = Counter(zip(order.indices(0, draws)[:-1].tolist(), order.indices(0, draws)[1:].tolist(), strict=True))
    assert abs(pairs[4, 4] / draws - (7 / 11) ** 2) < 0.01, "draws that follow each other are independent"


@pytest.mark.parametrize("dataset", [Words(), Part(Words(), range(50)), ConcatDataset([Words(), Words()])])
def test_balance_makes_classes_equally_frequent(dataset: Any) -> None:
    order, epoch = made(Weighted("balance"), dataset)
    assert epoch == len(dataset)
    share = float(Words().labels[order.indices(0, 40_000) % SAMPLES].mean())
    assert abs(share - 0.5) < 6 * 0.5 / math.sqrt(40_000)


def test_batches_of_buckets_are_of_similar_lengths() -> None:
    lengths = np.array(Words().lengths)

    def padding(order: Positions, batches: Sequence[int]) -> float:
        """The share of padding in these batches."""
        held = [lengths[order.indices(k * BATCH, (k + 1) * BATCH)] for k in batches]
        return float(1 - sum(each.sum() for each in held) / sum(len(each) * each.max() for each in held))

    plain, bucketed = Order(SAMPLES, 5), made(Buckets("lengths", pool=100))[0]
    within = [k for k in range(60) if k * BATCH // SAMPLES == ((k + 1) * BATCH - 1) // SAMPLES]
    assert padding(plain, within) > 0.4
    assert padding(bucketed, within) < 0.12
    dropping = made(Buckets("lengths", pool=100), drop_last=True)[0]
    assert padding(dropping, range(60)) < 0.12, "each epoch begins with a batch"
    means = [lengths[bucketed.indices(k * BATCH, (k + 1) * BATCH)].mean() for k in range(12)]
    assert sorted(means) != means, "batches are shuffled"


def test_lengths_are_an_attribute_a_list_or_a_function_of_a_sample() -> None:
    words = Words()
    found = [made(Buckets(given))[0].indices(0, 50).tolist() for given in ("lengths", words.lengths, lambda n: n)]
    assert found[0] == found[1] == found[2]


class Wrong(Sampler):
    def __init__(self, epoch: Any, indices: Any) -> None:
        self._epoch, self._indices = epoch, indices

    def set_up(self, sampled: Sampled) -> int:
        return self._epoch  # type: ignore[no-any-return]

    def indices(self, start: int, stop: int) -> Any:
        return self._indices


@pytest.mark.parametrize("index", [-1, 10])
def test_what_is_no_sample_is_told_also_late_in_the_run(index: int) -> None:
    """-1 would be the last sample, without a word."""

    class Late(Wrong):
        def indices(self, start: int, stop: int) -> Any:
            return np.where(np.arange(start, stop) > 30, index, 0)

    order, _ = set_up(Late(10, None), Sampled(range(10), 10, 5, 4, drop_last=False))  # type: ignore[arg-type]
    assert order.indices(20, 30).tolist() == [0] * 10
    with pytest.raises(ConfigError, match=rf"Late.indices\(28, 34\) has .*{index}.* the samples 0 to 9"):
        order.indices(28, 34)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Weighted([1.0, 2.0]), r"weights has 2 numbers, and the data set has 103 samples"),
        (lambda: Weighted([-1.0, *[1.0] * 102]), r"weights of sample 0 is -1, and 1 in all are negative"),
        (lambda: Weighted([math.nan, *[1.0] * 102]), r"weights of sample 0 is nan, and 1 in all are not finite"),
        (lambda: Weighted([0] * SAMPLES), r"weights are all 0"),
        (lambda: Weighted("importanec"), r"weights=importanec names no attribute of the data set, a Words"),
        (lambda: Weighted("balance", samples=0), r"data.sampler.samples=0 is no epoch"),
        (lambda: Buckets("length"), r"data.sampler.length=length names no attribute"),
        (lambda: Buckets("names"), r"data.sampler.length is not one number a sample"),
        (lambda: Buckets("lengths", pool=0), r"data.sampler.pool=0"),
        (lambda: Subset([]), r"chooses no sample"),
        (lambda: Subset([1, 103]), r"data.sampler.indices has 103, and the data set has the samples 0 to 102"),
        (lambda: Subset("a:b"), r"indices=a:b is no slice"),
        (lambda: Subset("0:9:0"), r"indices=0:9:0 is no slice"),
        (lambda: Repeated(0), r"data.sampler.times=0"),
        (lambda: Repeated(10**18), r"data.sampler.times=1000000000000000000 of 103 samples is more"),
        (lambda: Wrong(None, None), r"Wrong.set_up returned None"),
        (lambda: Wrong(9, [1, 2]), r"Wrong.indices\(0, 8\) returned a list. Return an array of int64 of shape \(8,\)"),
        (lambda: Wrong(9, np.arange(8) + 99), r"has 99 to 106, and the data set has the samples 0 to 102"),
    ],
)
def test_what_cannot_work_is_refused_in_words(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made(make())


def test_balance_without_labels_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"weights=balance needs the class of each sample.*labels nor targets"):
        made(Weighted("balance"), [1, 2, 3])
