"""A confusion matrix is that of scikit-learn, over all samples that any rank had."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from phalanx.drawing import ConfusionMatrix
from phalanx.train.tasks.metric import Update


def counts(metric: ConfusionMatrix) -> list[list[int]]:
    found: list[list[int]] = metric.counts[:-1].view(metric.classes, metric.classes).tolist()
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_it_is_that_of_scikit_learn_on_any_number_of_ranks(ranks: int) -> None:
    labels, logits = torch.randint(0, 7, (500,)), torch.randn(500, 7)
    parts = [ConfusionMatrix(7) for _ in range(ranks)]
    for at in range(0, 500, 50):
        update = Update(logits[at : at + 50], labels[at : at + 50])
        parts[at * ranks // 500].update(*update.args)
    parts[0].merge(parts[1:])
    expected = confusion_matrix(labels.numpy(), logits.argmax(1).numpy(), labels=np.arange(7))
    assert counts(parts[0]) == expected.tolist()


def test_what_is_to_be_ignored_is_in_no_cell_and_pixels_count_as_samples() -> None:
    metric = ConfusionMatrix(3)
    metric.update(torch.randn(2, 3, 4, 5), torch.full((2, 4, 5), 255))
    metric.update(torch.tensor([0, 2, 9]), torch.tensor([-1, 1, 1]))
    assert counts(metric) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    state: Mapping[str, Any] = metric.state_dict()
    again = ConfusionMatrix(3)
    again.load_state_dict(state)
    assert counts(again) == counts(metric)
    assert again.compute() == {}
