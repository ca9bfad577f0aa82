"""Mixup and CutMix: what is mixed, by how much, and that labels say so."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from phalanx.data import MixupCutmix
from phalanx.exit.codes import ConfigError
from phalanx.tasks import Classification
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import Order
from phalanx.train.loading.shard import Span

CLASSES, SAMPLES = 4, 256


def one_value_each() -> TensorDataset:
    """Images of 8x6, all of one value that is the sample's number, and its class."""
    numbers = torch.arange(SAMPLES)
    return TensorDataset(numbers.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 6), numbers % CLASSES)


def batch_of(span: Span, mixup: float, cutmix: float) -> Any:
    whole = Span(0, 128)
    source = PositionDataset(
        one_value_each(), Order(SAMPLES, 0), MixupCutmix(CLASSES, mixup, cutmix), 3, None, lambda _: whole
    )
    return source.__getitems__(span)


def test_labels_tell_the_share_of_each_image() -> None:
    """Of all values in a mixed image the mean is that of the two samples by the labels' shares."""
    plain = PositionDataset(one_value_each(), Order(SAMPLES, 0), None, 3).__getitems__(Span(0, 128))
    for mixup, cutmix in ((0.4, 0.0), (0.0, 1.0), (0.4, 1.0)):
        images, labels = batch_of(Span(0, 128), mixup, cutmix)
        assert torch.allclose(labels.sum(1), torch.ones(128))
        own, values = plain[0][:, 0, 0, 0], images[:, 0].flatten(1)
        for i in range(128):
            found = values[i].unique()
            if not mixup or len(found) == 2:  # a box of the partner, or nothing of it, or all
                assert len(found) <= 2
                share = float((values[i] == own[i]).float().mean())
                classes = {int(value) % CLASSES for value in found}
                expected = share if len(classes) == 2 else 1.0
                assert float(labels[i, int(own[i]) % CLASSES]) == pytest.approx(expected, abs=1e-5)
            else:
                assert len(found) == 1


def test_a_sample_is_mixed_alike_however_the_batch_is_split() -> None:
    whole = batch_of(Span(0, 128), 0.4, 1.0)
    parts = [batch_of(span, 0.4, 1.0) for span in (Span(0, 50), Span(50, 128))]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


def test_shares_are_of_a_beta_distribution() -> None:
    """Beta(a, a) has the variance 1 / (8 a + 4)."""
    mix = MixupCutmix(CLASSES, 0.4, 0)
    draw = torch.from_numpy(np.random.default_rng(0).random((4000, 2), np.float32))
    share = mix._shares(draw[:, 0], draw[:, 1], torch.zeros(4000, dtype=torch.bool))
    assert float(share.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(share.var()) == pytest.approx(1 / (8 * 0.4 + 4), rel=0.06)


def test_the_task_takes_probabilities_in_training_alone() -> None:
    task, model = Classification(CLASSES, 0.1), nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))
    inputs, labels = torch.randn(6, 12), torch.tensor([0, 1, 2, 3, 0, 1])
    sure = nn.functional.one_hot(labels, CLASSES).float()
    hard, soft = task.ratios(model, (inputs, labels)), task.ratios(model, (inputs, sure))
    assert torch.allclose(hard["loss"].total, soft["loss"].total)
    assert hard["accuracy"] == soft["accuracy"]
    with pytest.raises(ConfigError, match="no probabilities: a row adds up to 2"):
        Classification(CLASSES, 0.0).ratios(model, (inputs, sure * 2))
    with pytest.raises(ConfigError, match=r"probabilities of 4 classes, and task\.classes=3"):
        Classification(3, 0.0).ratios(model, (inputs, sure))
    with pytest.raises(ConfigError, match="one whole number a sample"):
        task.ratios(model.eval(), (inputs, sure))


def test_the_label_is_looked_for_among_the_most_probable_classes() -> None:
    logits = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]])
    found = Classification(CLASSES, 0.0, top=2).ratios(nn.Identity().eval(), (logits, torch.tensor([0, 1, 2])))
    assert found["top2_accuracy"].total.item() == 2
    assert found["accuracy"].total.item() == 1
    with pytest.raises(ConfigError, match=r"task\.top=4 of 4 classes"):
        Classification(CLASSES, 0.0, top=4)
