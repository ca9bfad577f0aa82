"""Samples become the batch that torch's own collation makes of them."""

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from phalanx.train.loading.collation import collate_samples

Pair = namedtuple("Pair", ["left", "right"])

SAMPLES: dict[str, list[Any]] = {
    "tensors and labels": [(torch.ones(2), 3), (torch.zeros(2), 4)],
    "numbers of every kind": [(1, 2.5, True, np.float32(3), np.int64(4)), (5, 6.5, False, np.float32(7), np.int64(8))],
    "whole numbers beside others": [(1, 1), (2.5, True)],
    "truth first": [(True,), (2,)],
    "whole numbers beyond 63 bits beside floats": [(2**63, 0), (0.5, 1)],
    "named tuples": [Pair(1, torch.ones(1)), Pair(2, torch.zeros(1))],
    "tuples in tuples, lists and dicts": [((1, [2, 3]), {"at": (4, "a")}), ((5, [6, 7]), {"at": (8, "b")})],
    "no tuples": [1, 2, 3],
    "empty tuples": [(), ()],
}


@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_a_batch_is_what_torchs_collation_makes(samples: list[Any]) -> None:
    assert _told(collate_samples(samples)) == _told(default_collate(samples))


@pytest.mark.parametrize("samples", [[(1, 2), (3,)], [(2**70,), (1,)], [(None,), (None,)]])
def test_what_torch_refuses_is_refused_in_its_words(samples: list[Any]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever torch says
        default_collate(samples)
    with pytest.raises(expected.type) as found:
        collate_samples(samples)
    assert str(found.value) == str(expected.value)


def _told(batch: Any) -> object:
    """Types, dtypes and numbers, which compare."""
    if isinstance(batch, torch.Tensor):
        return batch.dtype, batch.tolist()
    if isinstance(batch, dict):
        return {name: _told(value) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch), [_told(value) for value in batch]
    return batch
