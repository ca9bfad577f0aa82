"""Flat gradients: each number once, in the memory order of its weight."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from phalanx.train.optim.gradients import FlatGradients
from tests.train.optim.updaters import drawn, make, small_model, trainable


def conv() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    return model.to(memory_format=torch.channels_last)


def transposed() -> nn.Module:
    """A weight that is dense, but neither in plain nor in channels-last order."""
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(torch.randn(4, 3).t())
    return model


def mixed() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3).double(), "c": nn.Linear(2, 2).bfloat16()})


def partly_frozen() -> nn.Module:
    model = small_model()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def odd_shapes() -> nn.Module:
    model = nn.Module()
    model.empty = nn.Parameter(torch.zeros(0, 3))
    model.scalar = nn.Parameter(torch.zeros(()))
    model.thin = nn.Parameter(torch.zeros(1, 5, 1))
    return model


MODELS: list[Callable[[], nn.Module]] = [small_model, conv, transposed, mixed, partly_frozen, tied, odd_shapes]


@pytest.mark.parametrize("model", MODELS)
def test_norm_is_that_of_all_gradients_and_clearing_clears_all(model: Callable[[], nn.Module]) -> None:
    parameters = trainable(model())
    gradients = FlatGradients(parameters, find_unused=False)
    gradients.begin(wrapped=False)
    for i, parameter in enumerate(parameters):
        assert parameter.grad is not None
        parameter.grad += i + 1
    gradients.find()
    expected = math.sqrt(sum((i + 1) ** 2 * p.numel() for i, p in enumerate(parameters)))
    assert float(gradients.norm()) == pytest.approx(expected, rel=1e-3)
    gradients.divide(torch.tensor(2.0))
    assert all((p.grad == (i + 1) / 2).all() for i, p in enumerate(parameters) if p.grad is not None)
    gradients.zero()
    assert not any(p.grad.any() for p in parameters if p.grad is not None)


@pytest.mark.parametrize("model", MODELS)
def test_there_is_one_buffer_a_dtype_and_the_order_in_memory_is_the_weights(model: Callable[[], nn.Module]) -> None:
    parameters = trainable(model())
    FlatGradients(parameters, find_unused=False).begin(wrapped=False)
    found = [p.grad for p in parameters if p.grad is not None]
    assert len(found) == len(parameters)
    assert [g.stride() for g in found] == [p.stride() for p in parameters]
    assert len({g.untyped_storage().data_ptr() for g in found if g.numel()}) == len({p.dtype for p in parameters})


@pytest.mark.parametrize("fused", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("model", [small_model, conv, transposed, partly_frozen, tied, odd_shapes])
def test_fused_kernels_give_every_weight_its_own_gradient(
    model: Callable[[], nn.Module], fused: type[torch.optim.Adam]
) -> None:
    """A kernel that walks weight and gradient in their memory order must meet the same number in both."""
    flat = model()
    by_hand = copy.deepcopy(flat)
    made = make(flat, fused(trainable(flat), lr=0.1, fused=True))
    reference = fused(trainable(by_hand), lr=0.1, foreach=False)
    for step in range(3):
        made.step(drawn(flat, step))
        for parameter, gradient in zip(trainable(by_hand), drawn(by_hand, step), strict=True):
            parameter.grad = gradient
        reference.step()
    for ours, theirs in zip(flat.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_backward_adds_into_the_buffers_and_leaves_the_gradients_where_they_are() -> None:
    model = conv()
    parameters = trainable(model)
    gradients = FlatGradients(parameters, find_unused=False)
    gradients.begin(wrapped=False)
    before = [(p.grad.data_ptr(), p.grad.stride()) for p in parameters if p.grad is not None]
    images = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    for _ in range(2):
        F.cross_entropy(model(images), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    assert [(p.grad.data_ptr(), p.grad.stride()) for p in parameters if p.grad is not None] == before
    once = torch.autograd.grad(F.cross_entropy(model(images), torch.tensor([0, 1])), parameters)
    for parameter, gradient in zip(parameters, once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * gradient)


def test_parameters_that_come_and_go_keep_out_of_the_steps_they_take_no_part_in() -> None:
    model = nn.ModuleDict({"always": nn.Linear(2, 1), "sometimes": nn.Linear(2, 1)})
    parameters = trainable(model)
    gradients = FlatGradients(parameters, find_unused=True)
    gradients.begin(wrapped=False)
    inputs = torch.ones(1, 2)
    model["always"](inputs).sum().backward()
    gradients.find()
    assert float(gradients.norm()) == pytest.approx(math.sqrt(3))
    assert model["sometimes"].weight.grad is None
    gradients.zero()
    (model["always"](inputs) + model["sometimes"](inputs)).sum().backward()
    gradients.find()
    assert float(gradients.norm()) == pytest.approx(math.sqrt(6))
    gradients.divide(torch.tensor(2.0))
    assert all((p.grad == 0.5).all() for p in parameters if p.grad is not None)
    gradients.zero()
    assert all(p.grad is None for p in parameters)


def test_gradients_that_share_a_storage_with_something_else_are_counted_alone() -> None:
    """A storage is taken as a whole only where the gradients fill it."""
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    storage = torch.tensor([3.0, 4.0, 100.0, 0.0, 0.0, 12.0])
    gradients = FlatGradients(parameters, find_unused=True)
    gradients.begin(wrapped=True)
    parameters[0].grad, parameters[1].grad = storage[:2], storage[3:]
    gradients.find()
    assert float(gradients.norm()) == pytest.approx(13)


def halved(parameter: nn.Parameter) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(0.5)


def replaced(parameter: nn.Parameter) -> None:
    assert parameter.grad is not None
    parameter.grad = parameter.grad * 0.5


@pytest.mark.parametrize("hook", [halved, replaced])
def test_a_parameter_without_a_gradient_is_found_also_where_a_hook_changes_those_of_others(
    hook: Callable[[nn.Parameter], None],
) -> None:
    """And one whose gradient is zero is not taken for it, in the second micro-batch neither."""
    reached, zero, missed = (nn.Parameter(torch.ones(2)) for _ in range(3))
    for parameter in (reached, zero, missed):
        parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    gradients = FlatGradients([reached, zero, missed], find_unused=False)
    gradients.begin(wrapped=False)
    for _ in range(2):
        gradients.expect()
        (reached.sum() + 0.0 * zero.sum()).backward()  # type: ignore[no-untyped-call]
    assert [parameter is missed for parameter in gradients.missing()] == [True]
    (flat,) = gradients.gathered()
    assert flat.tolist() == [0.75, 0.75, 0.0, 0.0, 0.0, 0.0]


def test_buffers_come_in_the_order_of_the_parameters_which_all_ranks_share() -> None:
    """A set's order depends on where things lie in a process."""
    dtypes = [torch.float64, torch.float16, torch.complex64, torch.float32, torch.bfloat16]
    parameters = [nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in dtypes]
    gradients = FlatGradients(parameters, find_unused=False)
    gradients.begin(wrapped=False)
    assert [flat.dtype for flat in gradients.gathered()] == dtypes
