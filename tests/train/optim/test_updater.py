"""One step of the optimizer: as torch does it, and not at all where the gradient is not finite."""

import copy
import io
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.optim.precision import LossScale
from phalanx.train.schedules.schedule import Cosine
from tests.train.optim.updaters import (
    STEPS,
    drawn,
    equal,
    made_optimizers,
    make,
    small_model,
    spoiled,
    take_six_steps,
    trainable,
    updater_of,
)

SCHEDULE = Cosine(warmup_steps=3, final=0.1)
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adam_l2": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "dampened": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01}),
}
FUSED = ("adam", "adam_l2", "adamw", "sgd", "momentum", "nesterov", "dampened", "adagrad")


class Drift(torch.optim.Optimizer):
    """What a user might write: it knows of no loss scaling and keeps a count."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["steps"] = self.state[parameter].get("steps", 0) + 1
                parameter -= group["lr"] * parameter.grad.sign()


def optimizer(name: str, model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    if name == "drift":
        return Drift(trainable(model), 0.01)
    kind, options = OPTIMIZERS[name]
    return kind(trainable(model), **(options | {"fused": True} if fused else options))


ALL = [*((name, True) for name in FUSED), *((name, False) for name in OPTIMIZERS), ("drift", False)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "fused"), ALL)
def test_steps_clipping_and_schedule_are_those_of_a_loop_by_hand(name: str, fused: bool, dtype: torch.dtype) -> None:
    model = small_model(dtype)
    by_hand = copy.deepcopy(model)
    reference = optimizer(name, by_hand, fused=False)
    made = make(model, optimizer(name, model, fused), schedule=SCHEDULE, clip_norm=2.0)
    peak, factors = reference.param_groups[0]["lr"], SCHEDULE.factor(np.arange(STEPS), STEPS)
    for step in range(20):
        norm, skipped = made.step(drawn(model, step))
        for parameter, gradient in zip(by_hand.parameters(), drawn(by_hand, step), strict=True):
            parameter.grad = gradient
        expected = nn.utils.clip_grad_norm_(by_hand.parameters(), 2.0)
        reference.param_groups[0]["lr"] = peak * factors[step]
        reference.step()
        assert norm == pytest.approx(float(expected), rel=1e-12 if dtype == torch.float64 else 1e-6)
        assert not skipped
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("name", "fused"), ALL)
def test_a_skipped_step_changes_nothing_at_all(name: str, fused: bool, value: float, on_device: bool) -> None:
    model = small_model()
    made = make(model, optimizer(name, model, fused), schedule=SCHEDULE, clip_norm=2.0, decay=0.9, on_device=on_device)
    for step in range(4):
        before, rate = made.everything(), made.updater.rates(int(made.updater.applied), 0)
        _, skipped = made.step(spoiled(drawn(model, 100), value))
        assert skipped
        # Before the very first step an optimizer may lay its state out, all of it zero.
        state = {**before, "state": made.everything()["state"] if step == 0 else before["state"]}
        assert equal(state, made.everything())
        assert made.updater.rates(int(made.updater.applied), 0) == rate
        made.step(drawn(model, step))


@pytest.mark.parametrize("on_device", [True, False])
@pytest.mark.parametrize(("name", "fused"), ALL)
def test_a_run_with_skipped_steps_ends_where_one_without_them_ends(name: str, fused: bool, on_device: bool) -> None:
    """Also when the very first steps are skipped: SGD's fused kernel would leave its momentum uninitialised.

    And whoever decides, device or host, the bits are the same.
    """
    plain, disturbed = small_model(), small_model()
    one = make(plain, optimizer(name, plain, fused), schedule=SCHEDULE, decay=0.9, on_device=on_device)
    other = make(disturbed, optimizer(name, disturbed, fused), schedule=SCHEDULE, decay=0.9)
    take_six_steps(one, disturbed=other)
    assert equal(one.everything(), other.everything())
    assert int(other.updater.applied) == 6


def test_a_gradient_whose_norm_overflows_is_skipped_and_the_next_one_is_not() -> None:
    model = small_model()
    made = make(model, torch.optim.SGD(trainable(model), lr=0.1, fused=True))
    before = made.everything()
    assert made.step([torch.full_like(p, 1e30) for p in trainable(model)])[1]
    assert equal(before, made.everything())
    assert not made.step(drawn(model, 0))[1]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_divisor_is_the_gradients_before_clipping(fused: bool, dtype: torch.dtype) -> None:
    plain, divided = small_model(dtype), small_model(dtype)
    one = make(plain, optimizer("adam", plain, fused), clip_norm=1.0)
    other = make(divided, optimizer("adam", divided, fused), clip_norm=1.0)
    for step in range(5):
        expected, _ = one.step(drawn(plain, step))
        found, _ = other.step([7 * gradient for gradient in drawn(plain, step)], torch.tensor(7.0, dtype=dtype))
        assert found == pytest.approx(expected, rel=1e-6)
    for a, b in zip(plain.parameters(), divided.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_nothing_was_counted_anywhere_is_a_skip_and_no_division_by_zero() -> None:
    model = small_model()
    made = make(model, optimizer("adam", model, True))
    before = made.everything()["weights"]
    assert made.step([torch.zeros_like(p) for p in trainable(model)], torch.tensor(0.0))[1]
    assert equal(before, made.everything()["weights"])


def test_clipping_leaves_small_gradients_as_they_are() -> None:
    plain, clipped = small_model(), small_model()
    one, other = (
        make(plain, optimizer("sgd", plain, True)),
        make(clipped, optimizer("sgd", clipped, True), clip_norm=1e9),
    )
    one.step(drawn(plain, 0))
    other.step(drawn(plain, 0))
    assert equal(plain.state_dict(), clipped.state_dict())


def test_overflow_under_loss_scaling_skips_and_halves_and_then_the_same_gradient_passes() -> None:
    model, scale = small_model(), LossScale(torch.device("cpu"))
    made = make(model, optimizer("adamw", model, True), scale=scale, clip_norm=1.0)
    reference = small_model()
    unscaled = make(reference, optimizer("adamw", reference, True), clip_norm=1.0)

    def scaled() -> list[torch.Tensor]:  # as float16 holds them: 40000 fits, 80000 does not
        return [(g.sign() * float(scale.factor)).half().float() for g in drawn(model, 0)]

    assert made.step(scaled())[1], "65536 is beyond float16"
    assert float(scale.used) == 65536
    assert float(scale.factor) == 32768
    norm, skipped = made.step(scaled())
    assert not skipped
    expected, _ = unscaled.step([g.sign() for g in drawn(model, 0)])
    assert norm == pytest.approx(expected)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("name", "fused"), ALL)
def test_state_comes_back_through_a_file_and_training_goes_on_with_the_same_bits(name: str, fused: bool) -> None:
    model = small_model()
    made = make(model, optimizer(name, model, fused), schedule=SCHEDULE, scale=LossScale(torch.device("cpu")))
    for step in range(3):
        made.step(drawn(model, step))
    made.step(spoiled(drawn(model, 9)))
    file = io.BytesIO()
    torch.save(made.updater.state(), file)
    weights = copy.deepcopy(model.state_dict())
    after = [made.step(drawn(model, step)) for step in range(3, 6)]

    again = small_model()
    continued = make(again, optimizer(name, again, fused), schedule=SCHEDULE, scale=LossScale(torch.device("cpu")))
    again.load_state_dict(weights)
    file.seek(0)
    continued.updater.load(torch.load(file, weights_only=True), 3)
    assert [continued.step(drawn(model, step)) for step in range(3, 6)] == after
    assert equal(made.everything(), continued.everything())
    assert equal(made.updater.scale.state(), continued.updater.scale.state())  # type: ignore[union-attr]


ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.1, "fused": True}


def test_without_decay_1d_biases_and_norms_keep_out_of_weight_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Conv1d(3, 3, 1))
    made = updater_of(model, {**ADAMW, "decay_1d": False})
    decayed, spared = made.optimizer.param_groups
    assert {p.dim() for p in decayed["params"]} == {2, 3}
    assert {p.dim() for p in spared["params"]} == {1}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(updater_of(model, ADAMW).optimizer.param_groups) == 1
    made.step([torch.zeros_like(p) for p in trainable(model)])
    assert equal(model[1].weight, torch.ones(3))


def test_the_weight_decay_that_an_optimizer_has_by_itself_spares_them_too() -> None:
    made = updater_of(small_model(), {"_target_": "torch.optim.AdamW", "lr": 0.1, "decay_1d": False})
    assert [group["weight_decay"] for group in made.optimizer.param_groups] == [0.01, 0.0]


def test_frozen_weights_are_in_no_group_and_a_model_of_them_alone_is_refused() -> None:
    model = small_model()
    first, *_ = model.parameters()
    first.requires_grad_(False)
    [only] = made_optimizers(model, ADAMW).optimizers[0].optimizer.param_groups
    assert all(parameter is not first for parameter in only["params"])
    with pytest.raises(ConfigError, match="no parameter to train"):
        made_optimizers(model.requires_grad_(False), ADAMW)


def test_a_weight_with_gaps_in_memory_is_refused_by_name() -> None:
    """Fused kernels would walk over the gaps."""
    model = nn.Module()
    model.register_parameter("slice", nn.Parameter(torch.zeros(4, 6)[:, :3]))
    with pytest.raises(ConfigError, match="slice has gaps"):
        made_optimizers(model, ADAMW)
