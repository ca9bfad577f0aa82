"""Schedulers of torch set what they do in a loop by hand, over skipped steps, epochs, evaluations and restarts."""

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torchs

from phalanx.exit.codes import ConfigError
from tests.train.optim.updaters import EPOCH, STEPS, Made, drawn, equal, small_model, spoiled, updater_of

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.1, "fused": True}
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
TORCHS = "torch.optim.lr_scheduler."
Make = Callable[[torch.optim.Optimizer], torchs.LRScheduler]


def partial(name: str, interval: str | None = None, **arguments: Any) -> dict[str, Any]:
    own = {} if interval is None else {"interval": interval}
    return {"_target_": f"{TORCHS}{name}", "_partial_": True, **own, **arguments}


def linear_then_cosine(optimizer: torch.optim.Optimizer) -> torchs.LRScheduler:
    first = torchs.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    return torchs.SequentialLR(optimizer, [first, torchs.CosineAnnealingLR(optimizer, 20)], milestones=[5])


def both(optimizer: torch.optim.Optimizer) -> torchs.LRScheduler:
    return torchs.ChainedScheduler([torchs.ConstantLR(optimizer, total_iters=4), torchs.ExponentialLR(optimizer, 0.9)])


KINDS: dict[str, tuple[dict[str, Any], Make]] = {
    "CosineAnnealingLR": (
        partial("CosineAnnealingLR", "step", T_max=30),
        lambda optimizer: torchs.CosineAnnealingLR(optimizer, T_max=30),
    ),
    "CosineAnnealingWarmRestarts": (
        partial("CosineAnnealingWarmRestarts", "step", T_0=4, T_mult=2),
        lambda optimizer: torchs.CosineAnnealingWarmRestarts(optimizer, T_0=4, T_mult=2),
    ),
    "MultiStepLR": (
        partial("MultiStepLR", "step", milestones=[3, 9], gamma=0.5),
        lambda optimizer: torchs.MultiStepLR(optimizer, [3, 9], 0.5),
    ),
    "OneCycleLR": (
        partial("OneCycleLR", "step", max_lr=0.5, total_steps=STEPS + 1),
        lambda optimizer: torchs.OneCycleLR(optimizer, 0.5, STEPS + 1),
    ),
    "CyclicLR": (
        partial("CyclicLR", "step", base_lr=0.01, max_lr=0.1, step_size_up=5),
        lambda optimizer: torchs.CyclicLR(optimizer, 0.01, 0.1, 5),
    ),
    "SequentialLR": (
        partial(
            "SequentialLR",
            "step",
            milestones=[5],
            schedulers=[
                partial("LinearLR", start_factor=0.1, total_iters=5),
                partial("CosineAnnealingLR", T_max=20),
            ],
        ),
        linear_then_cosine,
    ),
    "ChainedScheduler": (
        partial(
            "ChainedScheduler",
            "step",
            schedulers=[partial("ConstantLR", total_iters=4), partial("ExponentialLR", gamma=0.9)],
        ),
        both,
    ),
}


def by_hand(optimizer: torch.optim.Optimizer, make: Make, model: torch.nn.Module, steps: int) -> list[dict[str, Any]]:
    """Train with torch alone; the groups' numbers of each step."""
    scheduler, seen = make(optimizer), []
    for step in range(steps):
        for parameter, gradient in zip(model.parameters(), drawn(model, step), strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        seen.append(_numbers(optimizer))
        optimizer.step()
        scheduler.step()
    return seen


def numbers(made: Made) -> dict[str, Any]:
    return _numbers(made.optimizer)


def _numbers(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    momentum = group["betas"][0] if "betas" in group else group["momentum"]
    return {"lr": float(group["lr"]), "momentum": momentum}


def saved(made: Made) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(made.updater.state(), file)
    file.seek(0)
    found: dict[str, Any] = torch.load(file, weights_only=True)
    return found


@pytest.mark.parametrize(
    ("optim", "on_device"), [(ADAMW, True), (ADAMW, False), (SGD, False)], ids=["device", "adamw", "sgd"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduler_of_torch_gives_the_steps_of_a_loop_by_hand_over_skips_and_a_restart(
    kind: str, optim: dict[str, Any], on_device: bool
) -> None:
    """With `on_device` kernels find the rates by the number of applied steps, which the host does not ask for."""
    node, make = KINDS[kind]
    model, reference = small_model(), small_model()
    options = {name: value for name, value in optim.items() if name != "_target_"}
    theirs = getattr(torch.optim, optim["_target_"].rpartition(".")[2])(reference.parameters(), **options)
    expected = by_hand(theirs, make, reference, STEPS)
    made = updater_of(model, optim, node, on_device=on_device)
    assert made.updater._on_device is (on_device and kind not in ("OneCycleLR", "CyclicLR"))
    for step in range(STEPS):
        if step in (0, 3, 21):
            assert made.step(spoiled(drawn(model, 99)))[1]
        logged = made.updater.rates(step, made.updater.taken)
        made.step(drawn(model, step))
        assert numbers(made) == pytest.approx(expected[step], rel=1e-12), step
        assert logged == {"lr": numbers(made)["lr"]}
        if step in (4, 22):
            state, weights = saved(made), copy.deepcopy(model.state_dict())
            model = small_model()
            model.load_state_dict(weights)
            taken = made.updater.taken
            made = updater_of(model, optim, node, on_device=on_device)
            made.updater.load(state, taken)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("on_device", [True, False])
def test_a_scheduler_by_epochs_changes_the_rate_where_an_epoch_begins_also_where_steps_were_skipped(
    on_device: bool,
) -> None:
    node = partial("StepLR", "epoch", step_size=2, gamma=0.5)
    model = small_model()
    made = updater_of(model, {**SGD, "fused": True}, node, on_device=on_device)
    for step in range(STEPS):
        gradients = drawn(model, step)
        made.step(spoiled(gradients) if step in (0, 9, 10) else gradients)
        assert made.updater.rates(0, step)["lr"] == pytest.approx(0.1 * 0.5 ** (step // EPOCH // 2))
        if step not in (0, 9, 10):
            assert numbers(made)["lr"] == made.updater.rates(0, step)["lr"]
        if step == 17:
            state = saved(made)
            made = updater_of(model, {**SGD, "fused": True}, node, on_device=on_device)
            made.updater.load(state, step + 1)


@pytest.mark.parametrize("node", [
    partial("ReduceLROnPlateau", metric="accuracy", factor=0.5, patience=1),
    {"_target_": "phalanx.schedules.Plateau", "metric": "accuracy", "factor": 0.5, "patience": 1},
], ids=["torch", "ours"])  # fmt: skip
def test_the_rate_falls_where_a_metric_gets_no_better_and_a_restart_remembers(node: dict[str, Any]) -> None:
    """Of an accuracy, so more is better, which is not torch's default."""
    values = [0.1, 0.2, 0.15, 0.2, 0.3, 0.25, float("nan"), 0.26, 0.2, 0.1]
    model, theirs = small_model(), torch.optim.SGD([torch.zeros(1)], lr=0.1)
    reference = torchs.ReduceLROnPlateau(theirs, mode="max", factor=0.5, patience=1, threshold=0.0)
    made = updater_of(model, SGD, {**node, **({"threshold": 0.0} if "_partial_" in node else {})})
    for step, value in enumerate(values):
        made.step(drawn(model, step))
        made.updater.evaluated({"eval": {"loss": -float(step), "accuracy": value}})
        reference.step(value)
        expected = theirs.param_groups[0]["lr"]
        assert made.updater.rates(step, step)["lr"] == pytest.approx(expected), value
        state = saved(made)
        made = updater_of(model, SGD, {**node, **({"threshold": 0.0} if "_partial_" in node else {})})
        made.updater.load(state, step + 1)
    assert expected == pytest.approx(0.1 / 8)


def test_a_scheduler_that_runs_ahead_gives_the_same_bits_from_any_step_on() -> None:
    node = partial("CosineAnnealingLR", "step", T_max=2500)
    whole = updater_of(small_model(), SGD, node, steps=3000)
    rates = [whole.updater.rates(step, step)["lr"] for step in range(3000)]
    for step in (0, 1, 1023, 1024, 1025, 2999):
        one = updater_of(small_model(), SGD, node, steps=3000)
        one.updater.rates(step, step)
        one.updater.applied += step
        other = updater_of(small_model(), SGD, node, steps=3000)
        other.updater.load(saved(one), step)
        for later in range(step, min(3000, step + 50)):
            assert other.updater.rates(later, later)["lr"] == rates[later]
    assert equal(len(set(rates)), 2500) or len(set(rates)) > 2000


def test_kernels_find_the_rates_of_steps_that_a_scheduler_has_to_run_ahead_for() -> None:
    node, steps = partial("CosineAnnealingLR", "step", T_max=1100), 1100
    model = small_model()
    made = updater_of(model, ADAMW, node, steps=steps, on_device=True)
    gradients = drawn(model, 0)
    for step in range(steps):
        made.step(gradients)
        if step % 100 == 0 or step > 1020:
            expected = 0.05 * (1 + math.cos(math.pi * step / 1100))
            assert numbers(made)["lr"] == pytest.approx(expected, rel=1e-9), step


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (partial("StepLR", step_size=3), "schedule.interval=null does not say when .*StepLR steps"),
        (partial("StepLR", "day", step_size=3), "schedule.interval=day does not say"),
        (partial("ReduceLROnPlateau", metric=3), "schedule.metric=3 is no name of a metric. Type schedule.metric=loss"),
        ({**partial("StepLR", "step", step_size=3), "_partial_": False}, "Type schedule._partial_=true beside it"),
        (partial("StepLR", "step", stepsize=3), "schedule.stepsize is no argument of StepLR"),
        (partial("StepLR", "step"), "schedule.step_size is not set"),
        (partial("ReduceLROnPlateau", metric="power"), "no name tells whether more or less of it is better"),
        (partial("ReduceLROnPlateau", metric="loss", mode="low"), "schedule.mode=low does not fit"),
        ({"_target_": "tests.zoo.schedules.Forgetful", "_partial_": True, "interval": "step"}, "goes on otherwise after"),
        ({"_target_": "tests.zoo.schedules.Failing", "_partial_": True, "interval": "step"},
         r"cannot take a step: .*too far.*schedules.py:\d+"),
        (partial("LambdaLR", "step", lr_lambda=0.95),
         r"schedule.lr_lambda=0.95 does not fit: .*LambdaLR takes a function there .*lr_lambda={_target_: mypkg.module.f"),
        (partial("MultiplicativeLR", "step", lr_lambda=0.95), "schedule.lr_lambda=0.95 does not fit: .* a function"),
        (partial("MultiStepLR", "step", milestones=5), r"schedule.milestones=5 .* Type schedule.milestones=\[1, 2\]"),
        (partial("OneCycleLR", "step", max_lr=0.1, total_steps=STEPS - 1),
         f"OneCycleLR ends after {STEPS - 1} steps, and the run has {STEPS}. Type schedule.total_steps={STEPS}"),
    ],
)  # fmt: skip
def test_a_scheduler_that_cannot_be_followed_is_refused_in_words(node: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        updater_of(small_model(), SGD, node)
