"""How the ranks share a batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.train.loading.shard import Span, split


def sizes(samples: int, micro_batch: int | None, size: int) -> list[list[int]]:
    return [[span.stop - span.start for span in split(samples, micro_batch, rank, size)] for rank in range(size)]


@given(samples=st.integers(1, 500), micro_batch=st.none() | st.integers(1, 70), size=st.integers(1, 40))
def test_the_ranks_shares_make_up_the_batch(samples: int, micro_batch: int | None, size: int) -> None:
    spans = [span for rank in range(size) for span in split(samples, micro_batch, rank, size)]
    assert [place for span in spans for place in range(*span)] == list(range(samples))
    assert all(span.stop > span.start for span in spans)


@given(samples=st.integers(1, 500), micro_batch=st.integers(1, 70), size=st.integers(1, 40))
def test_a_fixed_micro_batch_cuts_alike_on_any_number_of_ranks(samples: int, micro_batch: int, size: int) -> None:
    alone = split(samples, micro_batch, 0, 1)
    assert [span for rank in range(size) for span in split(samples, micro_batch, rank, size)] == alone
    counts = [len(pieces) for pieces in sizes(samples, micro_batch, size)]
    assert max(counts) - min(counts) <= 1


@given(samples=st.integers(1, 500), size=st.integers(1, 40))
def test_without_one_each_rank_takes_one_piece_and_pieces_differ_by_a_sample(samples: int, size: int) -> None:
    shares = sizes(samples, None, size)
    assert all(len(pieces) <= 1 for pieces in shares)
    totals = [sum(pieces) for pieces in shares]
    assert max(totals) - min(totals) <= 1


@pytest.mark.parametrize(
    ("samples", "micro_batch", "size", "expected"),
    [
        (64, 8, 3, [[8, 8, 8], [8, 8, 8], [8, 8]]),
        (64, None, 3, [[22], [21], [21]]),
        (20, 8, 2, [[8, 8], [4]]),
        (10, 8, 4, [[8], [2], [], []]),
        (2, None, 3, [[1], [1], []]),
    ],
)
def test_shares(samples: int, micro_batch: int | None, size: int, expected: list[list[int]]) -> None:
    assert sizes(samples, micro_batch, size) == expected


def test_pieces_follow_each_other() -> None:
    assert split(20, 8, 1, 2) == [Span(16, 20)]
