"""Plain data travel between ranks as bytes that can make nothing run, and come out as they went in."""

from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from phalanx.exit.codes import ConfigError
from phalanx.train.distributed.plain_data import pack, unpack

CPU = torch.device("cpu")
PLAIN: list[Any] = [
    *(None, True, 3, 2**80, -0.0, 1e-310, float("inf"), "é\n\0", "", [], {}, (), set()),
    [1, [2.5, "x"], (None, {3: "a", "b": (1,)})],
    {("a", 1): {1, 2}, None: frozenset("a")},
    Counter("abca"),
    OrderedDict(b=1, a=2),
    {"is": "tensor"},
    [b"", (b"\x00\xff", 1)],
]
TENSORS = [
    torch.arange(6).view(2, 3).T,
    torch.tensor(True),
    torch.zeros(0, 3, dtype=torch.float16),
    torch.tensor([1 + 2j]),
    torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    torch.arange(5, dtype=torch.uint8)[1:4],
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_come_out_as_they_went_in(value: Any) -> None:
    found = unpack(pack(value, "it"), CPU)
    assert repr(found) == repr(value)
    assert type(found) is type(value)


def test_tensors_and_arrays_keep_dtype_shape_and_bits() -> None:
    arrays: list[Any] = [
        np.eye(2, dtype=np.float32),
        np.array(3, np.int16),
        np.zeros((0, 2)),
        np.float64(2.5),
        np.bool_(True),
    ]
    found = unpack(pack([*TENSORS, *arrays], "it"), CPU)
    for tensor, expected in zip(found, TENSORS, strict=False):
        assert tensor.dtype == expected.dtype
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0, equal_nan=True)
    for array, value in zip(found[len(TENSORS) :], arrays, strict=True):
        assert type(array) is type(value)
        assert array.dtype == value.dtype
        np.testing.assert_array_equal(array, value)
    assert unpack(pack(defaultdict(int, a=1), "it"), CPU) == {"a": 1}


@pytest.mark.parametrize(
    "value", [print, CPU, torch.nn.Linear(1, 1), bytearray(1), np.array(["a"]), torch.eye(2).to_sparse()]
)
def test_what_is_no_plain_data_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"the state\['kept'\]\[1\] is a .*, which only pickle could send"):
        pack({"kept": [1, value]}, "the state")
