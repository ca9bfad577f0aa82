"""The average of the weights."""

import copy

import torch
from torch import nn

from phalanx.train.optim.ema import Average
from tests.train.optim.updaters import drawn, equal, make, small_model, trainable


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
    for found, wanted in zip(average.weights, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_average_drags_no_graph_along() -> None:
    """A graph that grows by a step a step would eat the memory of a long run."""
    model = small_model()
    average = Average(model.parameters(), 0.9)
    average.update(torch.tensor(1), torch.tensor(0.0))
    assert all(p.grad_fn is None and not p.requires_grad for p in average.weights)


def test_placed_in_the_model_are_the_averaged_weights_and_the_newest_buffers_and_both_come_back() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = Average(model.parameters(), 0.9)
    started = copy.deepcopy(average.weights)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    own = copy.deepcopy(list(model.parameters()))
    model(torch.randn(8, 2))
    with average.swapped_in():
        assert equal(list(model.parameters()), started)
        assert int(model[1].num_batches_tracked) == 1  # type: ignore[arg-type]
    assert equal(list(model.parameters()), own)
    assert equal(average.weights, started)


def test_tied_and_frozen_weights_stay_so_in_the_average() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    made = make(model, torch.optim.SGD(trainable(model), lr=0.1, fused=True), decay=0.5)
    for step in range(3):
        made.step(drawn(model, step))
    average = made.updater.average
    assert average is not None
    assert len(average.weights) == 3
    with average.swapped_in():
        assert model[1].weight is model[0].weight
        assert equal(average.weights[1], model[0].bias)


def test_parts_of_other_dtypes_are_averaged_each_as_its_own() -> None:
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)
    model = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in dtypes])
    average = Average(model.parameters(), 0.5)
    with torch.no_grad():
        for parameter in model:
            parameter += 1
    average.update(torch.tensor(99), torch.tensor(0.0))
    assert [weight.dtype for weight in average.weights] == list(dtypes)
    assert all((weight == 0.5).all() for weight in average.weights)
