"""The average of the weights."""

import copy

import torch
from torch import nn

from tests.step.updaters import drawn, equal, make, small_model, trainable
from train.ema import Average


def test_average_follows_its_formula_step_by_step() -> None:
    model = small_model(torch.float64)
    made = make(model, torch.optim.SGD(trainable(model), lr=0.1, fused=True), decay=0.6)
    average = made.updater.average
    assert average is not None
    expected = [p.detach().clone() for p in model.parameters()]
    for step in range(12):
        made.step(drawn(model, step))
        decay = min(0.6, (2 + step) / (11 + step))
        expected = [decay * e + (1 - decay) * p.detach() for e, p in zip(expected, model.parameters(), strict=True)]
    for found, wanted in zip(average.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_average_drags_no_graph_along() -> None:
    """A graph that grows by a step a step would eat the memory of a long run."""
    model = small_model()
    average = Average(model, 0.9)
    average.follow(torch.tensor(1), torch.tensor(0.0))
    assert all(p.grad_fn is None and not p.requires_grad for p in average.model.parameters())


def test_evaluated_model_has_averaged_weights_and_the_newest_buffers() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = Average(model, 0.9)
    started = copy.deepcopy(list(average.model.parameters()))
    model(torch.randn(8, 2))
    evaluated = average.evaluated()
    assert equal(list(evaluated.buffers()), list(model.buffers()))
    assert equal(list(evaluated.parameters()), started)
    assert int(evaluated[1].num_batches_tracked) == 1  # type: ignore[index]


def test_tied_and_frozen_weights_stay_so_in_the_average() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    made = make(model, torch.optim.SGD(trainable(model), lr=0.1, fused=True), decay=0.5)
    for step in range(3):
        made.step(drawn(model, step))
    average = made.updater.average
    assert average is not None
    assert average.model[1].weight is average.model[0].weight  # type: ignore[index]
    assert equal(average.model[0].bias, model[0].bias)  # type: ignore[index]


def test_a_model_without_buffers_is_evaluated_all_the_same() -> None:
    assert Average(small_model(), 0.9).evaluated() is not None
