"""The order of samples: every epoch a permutation, any position found at once, nothing remembered."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from phalanx.train.loading.order import _BLOCK, Order

FEW = [1, 2, 3, 4, 5, 7, 8, 13, 64, 97, 1000, 1024, 1438, _BLOCK - 1, _BLOCK]
MANY = [_BLOCK + 1, 2**15 - 1, 2**15, 2**15 + 1, 20011, 60000]


@pytest.mark.parametrize("samples", FEW + MANY)
def test_each_epoch_holds_every_sample_once(samples: int) -> None:
    order = Order(samples, seed=3)
    for epoch in (0, 1, 2, 1000):
        found = order.indices(epoch * samples, (epoch + 1) * samples)
        assert np.array_equal(np.sort(found), np.arange(samples))


@pytest.mark.parametrize("samples", [5, 97, 20011])
def test_a_batch_over_the_end_of_an_epoch_neither_drops_nor_repeats(samples: int) -> None:
    order = Order(samples, seed=1)
    batches = [order.indices(start, start + 4) for start in range(0, 4 * samples, 4)]
    epochs = np.concatenate(batches).reshape(4, samples)
    assert np.array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(samples), (4, samples)))


@given(
    samples=st.sampled_from([1, 2, 97, 1438, 20011]),
    places=st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 300)), min_size=1, max_size=8),
)
def test_a_position_does_not_depend_on_what_was_asked_before(samples: int, places: list[tuple[int, int]]) -> None:
    asked_often = Order(samples, seed=7)
    for start, count in places:
        fresh = Order(samples, seed=7).indices(start, start + count)
        assert np.array_equal(asked_often.indices(start, start + count), fresh)


@pytest.mark.parametrize("samples", [97, 20011])
def test_a_span_is_its_single_positions(samples: int) -> None:
    order = Order(samples, seed=7)
    whole = order.indices(0, 3 * _BLOCK)
    assert [order.indices(p, p + 1)[0] for p in range(0, 3 * _BLOCK, 501)] == list(whole[::501])


@pytest.mark.parametrize("samples", [97, 20011])
def test_changing_the_answer_does_not_change_the_order(samples: int) -> None:
    order = Order(samples, seed=7)
    first = order.indices(0, 64)
    first.sort()
    assert not np.array_equal(order.indices(0, 64), first)


def test_a_billion_samples_need_no_list() -> None:
    samples = 10**9
    order = Order(samples, seed=5)
    order.indices(0, 64)
    tracemalloc.start()
    began_s = time.process_time()
    far = order.indices(10**15, 10**15 + 64)
    spent_s, (_, peak) = time.process_time() - began_s, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert far.min() >= 0
    assert far.max() < samples
    assert len(set(far.tolist())) == 64
    assert peak < 16 * 2**20
    assert spent_s < 1  # a list would take minutes; this takes a few milliseconds


@pytest.mark.parametrize("samples", [97, 20011])
def test_seeds_and_epochs_differ(samples: int) -> None:
    orders = [
        Order(samples, seed).indices(epoch * samples, (epoch + 1) * samples) for seed in (0, 1) for epoch in (0, 1)
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.count_nonzero(one == other) < 10  # 1 is expected of unrelated permutations


def surprise(table: NDArray[np.int64]) -> float:
    """How many standard deviations Pearson's chi-square of independent rows and columns lies from its mean."""
    expected = table.sum(0) * table.sum(1)[:, None] / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float((((table - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def table(rows: NDArray[np.int64], columns: NDArray[np.int64], of: int, bins: int) -> NDArray[np.int64]:
    counts = np.zeros((bins, bins), np.int64)
    np.add.at(counts, (rows * bins // of, columns * bins // of), 1)
    return counts


@pytest.mark.parametrize(
    ("samples", "epochs", "bins"), [(5, 2000, 5), (50, 2000, 50), (20011, 60, 40), (65536, 20, 64)]
)
def test_the_order_is_statistically_uniform(samples: int, epochs: int, bins: int) -> None:
    """Sample against position, against the sample before it, and against the same position an epoch earlier."""
    order = Order(samples, seed=11)
    drawn = np.stack([order.indices(e * samples, (e + 1) * samples) for e in range(epochs)])
    positions = np.broadcast_to(np.arange(samples), drawn.shape)
    assert abs(surprise(table(positions.ravel(), drawn.ravel(), samples, bins))) < 5
    assert abs(surprise(table(drawn[1:].ravel(), drawn[:-1].ravel(), samples, bins))) < 5
    if samples > 1000:  # among few, a sample is visibly never its own successor
        assert abs(surprise(table(drawn[:, 1:].ravel(), drawn[:, :-1].ravel(), samples, bins))) < 5
        parity = table(positions.ravel() % 16, drawn.ravel() % 16, 16, 16)
        assert abs(surprise(parity)) < 5


def test_small_shuffles_take_every_order() -> None:
    drawn = Order(4, seed=2).indices(0, 4 * 24_000).reshape(-1, 4)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-square with 23 degrees of freedom: 23 +- 7


def test_no_samples_have_no_order() -> None:
    with pytest.raises(ValueError, match="no first"):
        Order(0, seed=0)
