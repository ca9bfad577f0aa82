"""Labels that are no classes are told in words; an attribute that is only called so is left alone."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.tasks.classification import Classification

INPUTS = torch.eye(4)


class Named:
    """A data set of four samples with an attribute `labels`."""

    def __init__(self, labels: Any) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return 4


class Raising(Named):
    def __init__(self) -> None:
        pass

    @property
    def labels(self) -> Any:
        raise OSError("the file of labels is elsewhere")


def task() -> Classification:
    return Classification(classes=3, label_smoothing=0.0)


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], np.arange(4), torch.arange(4), (0, 1, -1, 2), np.full(4, 9, np.uint8)]
)
def test_whole_numbers_of_all_samples_are_held_against_the_classes(labels: Any) -> None:
    with pytest.raises(ConfigError, match=r"labels run from .* admits 0 to 2"):
        task().check(Named(labels))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "labels",
    [
        None,
        ["cat", "dog", "owl", "bee"],
        ["cat", "dog"],
        [7, 8, 9],  # such as the classes' own numbers
        torch.eye(4),
        [0.5, 9.0, 1.0, 2.0],
        [True, False, True, True],
        {0: 9, 1: 9, 2: 9, 3: 9},
        np.array([0, "a", None, 9], dtype=object),
        lambda: [9, 9, 9, 9],
        SimpleNamespace(values=[9, 9, 9, 9]),
        [[9], [9, 9], [9], [9]],
    ],
)
def test_anything_else_that_is_called_labels_is_left_alone(labels: Any) -> None:
    task().check(Named(labels))  # type: ignore[arg-type]
    task().check(Raising())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ((INPUTS, torch.tensor([0.0, 1.0, 2.0, 1.0])), r"labels of a batch are \(4,\) float32"),
        ((INPUTS, torch.eye(4).long()), r"labels of a batch are \(4, 4\) int64, .* argmax"),
        ((INPUTS, torch.zeros(4, 1, dtype=torch.int64)), r"labels of a batch are \(4, 1\) int64"),
        ((INPUTS, torch.tensor([0, 1, 2, 3])), r"labels of training run from 0 to 3, .* Type task\.classes=4"),
        ((INPUTS, torch.tensor([0, 1, -100, 2])), "labels of training run from -100 to 2, .* from 0 on"),
        ((INPUTS, ["a", "b", "c", "d"]), "pairs of inputs and labels"),
        (INPUTS, r"pairs of inputs and labels, and the data give \(4, 4\) float32 in a Tensor"),
        ({"image": INPUTS, "label": torch.arange(4)}, "in a dict with the keys image, label"),
    ],
)
def test_labels_of_the_first_batch_are_told_before_a_kernel_meets_them(batch: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        task().ratios(nn.Linear(4, 3), batch)


def test_labels_of_any_whole_numbers_are_taken() -> None:
    model = nn.Linear(4, 3)
    losses = {
        float(task().ratios(model, (INPUTS, torch.tensor([0, 1, 2, 1], dtype=dtype)))["loss"].total.detach())
        for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8)
    }
    assert len(losses) == 1
