"""A learning rate is a pure function of the number of applied steps."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from phalanx.exit.codes import ConfigError
from phalanx.train.schedules.curves import (
    CosineRestarts,
    Decay,
    InverseSquareRoot,
    Piecewise,
    Polynomial,
    WarmupStableDecay,
)
from phalanx.train.schedules.plateau import Plateau
from phalanx.train.schedules.schedule import Constant, Cosine, Linear, OneCycle, Schedule, Step
from phalanx.train.schedules.schedule import factors as checked
from tests.zoo.schedules import BAD, GOOD, Giving

TOTAL = 100
WARMED: list[Schedule] = [
    Constant(warmup_steps=10),
    Cosine(warmup_steps=10, final=0.1),
    Linear(warmup_steps=10, final=0.1),
    Step(warmup_steps=10, step_every=30, gamma=0.5),
    WarmupStableDecay(warmup_steps=10, decay=0.2, final=0.1, shape=Decay.sqrt),
    WarmupStableDecay(warmup_steps=10, decay=0.5, final=0.0, shape=Decay.linear),
    WarmupStableDecay(warmup_steps=10, decay=0.5, final=0.0, shape=Decay.cosine),
    InverseSquareRoot(warmup_steps=10),
    Polynomial(warmup_steps=10, power=0.9, final=0.1),
    Piecewise(warmup_steps=10, steps=[0, 30, 60], factors=[1.0, 0.5, 0.1], linear=False),
    Piecewise(warmup_steps=10, steps=[0, 10, 60], factors=[1.0, 1.0, 0.1], linear=True),
    Plateau(warmup_steps=10, metric="loss", factor=0.1, patience=3),
]
RESTARTS = CosineRestarts(warmup_steps=10, period=10, growth=2.0, final=0.1)


def factors(schedule: Schedule, total: int = TOTAL) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The factor of every step and the one that would follow the last."""
    return schedule.factor(np.arange(total + 1), total)


def by_torch(make: Callable[..., lr_scheduler.LRScheduler], steps: int, **options: object) -> list[float]:
    """The rates that a scheduler of torch gives one step after another, of a peak rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = make(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


def test_cosines_of_one_length_are_torchs_and_take_no_memory_a_cosine() -> None:
    """A cosine a step, in a run of a million steps, was a list of as many numbers."""
    torchs = by_torch(lr_scheduler.CosineAnnealingWarmRestarts, TOTAL, T_0=7, T_mult=1, eta_min=0.1)
    assert factors(CosineRestarts(warmup_steps=0, period=7, growth=1.0, final=0.1))[:-1] == pytest.approx(torchs)
    tracemalloc.start()
    CosineRestarts(warmup_steps=0, period=1, growth=1.0, final=0.0).factor(np.array([10**9]), 10**9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize("schedule", WARMED)
def test_warm_up_rises_in_equal_parts_and_reaches_the_peak_when_it_ends(schedule: Schedule) -> None:
    rise = factors(schedule)[:11] / factors(schedule)[10]
    np.testing.assert_allclose(rise, np.arange(1, 12) / 11, rtol=1e-12)
    assert factors(schedule)[10] == 1.0
    assert factors(schedule)[0] > 0, "a first step at rate zero would be a step for nothing"


@pytest.mark.parametrize("schedule", [*WARMED, Constant(0), Cosine(0, 0.0), Linear(0, 0.0), Step(0, 7, 0.3)])
def test_after_the_warm_up_no_rate_ever_rises(schedule: Schedule) -> None:
    after = factors(schedule)[10:]
    assert (np.diff(after) <= 1e-12).all()
    assert ((after >= 0) & (after <= 1)).all()


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        (Cosine(10, 0.1), 0.1),
        (Linear(10, 0.1), 0.1),
        (OneCycle(0.3, 0.04, 0.01), 0.01),
        (Polynomial(10, 0.9, 0.1), 0.1),
        *((WarmupStableDecay(10, 0.2, 0.1, shape), 0.1) for shape in Decay),
    ],
)
def test_a_decay_ends_at_its_final_share_after_the_last_step(schedule: Schedule, end: float) -> None:
    assert factors(schedule)[-1] == pytest.approx(end, abs=1e-12)


def test_schedules_that_torch_has_too_are_torchs() -> None:
    same = {
        "constant": (Constant(0), by_torch(lr_scheduler.ConstantLR, TOTAL + 1, factor=1.0)),
        "cosine": (Cosine(0, 0.1), by_torch(lr_scheduler.CosineAnnealingLR, TOTAL + 1, T_max=TOTAL, eta_min=0.1)),
        "linear": (
            Linear(0, 0.1),
            by_torch(lr_scheduler.LinearLR, TOTAL + 1, start_factor=1.0, end_factor=0.1, total_iters=TOTAL),
        ),
        "step": (Step(0, 30, 0.5), by_torch(lr_scheduler.StepLR, TOTAL + 1, step_size=30, gamma=0.5)),
        "polynomial": (
            Polynomial(0, 0.9, 0.0),
            by_torch(lr_scheduler.PolynomialLR, TOTAL + 1, total_iters=TOTAL, power=0.9),
        ),
        "restarts": (
            CosineRestarts(0, 7, 2, 0.1),
            by_torch(lr_scheduler.CosineAnnealingWarmRestarts, TOTAL + 1, T_0=7, T_mult=2, eta_min=0.1),
        ),
        "equal restarts": (
            CosineRestarts(0, 7, 1, 0.0),
            by_torch(lr_scheduler.CosineAnnealingWarmRestarts, TOTAL + 1, T_0=7),
        ),
        "piecewise": (
            Piecewise(0, [0, 30, 60], [1, 0.1, 0.01], linear=False),
            by_torch(lr_scheduler.MultiStepLR, TOTAL + 1, milestones=[30, 60], gamma=0.1),
        ),
    }
    for name, (schedule, expected) in same.items():
        np.testing.assert_allclose(factors(schedule), expected, atol=1e-12, err_msg=name)


def test_one_cycle_is_torchs_whose_cycle_ends_with_the_last_step_and_ours_after_it() -> None:
    options = {
        "max_lr": 1.0,
        "total_steps": TOTAL + 1,
        "pct_start": 31 / 101,
        "div_factor": 25.0,
        "final_div_factor": 4.0,
    }
    expected = by_torch(lr_scheduler.OneCycleLR, TOTAL, **options)
    np.testing.assert_allclose(factors(OneCycle(rise=0.3, start=0.04, final=0.01))[:-1], expected, atol=1e-12)


def test_the_stable_part_is_the_peak_and_the_decay_begins_where_its_share_of_the_run_does() -> None:
    for shape, half in ((Decay.linear, 0.5), (Decay.cosine, 0.5), (Decay.sqrt, 1 - 0.5**0.5)):
        found = factors(WarmupStableDecay(10, decay=0.2, final=0.0, shape=shape))
        assert (found[10:81] == 1.0).all()
        assert found[81] < 1.0
        assert found[90] == pytest.approx(half)


def test_the_inverse_square_root_is_the_transformers_whatever_the_length_of_the_run() -> None:
    found = factors(InverseSquareRoot(warmup_steps=9))
    number = np.arange(1, TOTAL + 2)
    np.testing.assert_allclose(found, np.minimum(number**-0.5, number * 10**-1.5) * 10**0.5, rtol=1e-12)
    np.testing.assert_array_equal(factors(InverseSquareRoot(9), 1000)[: TOTAL + 1], found)


def test_one_cycle_rises_to_the_peak_and_then_only_falls() -> None:
    found = factors(OneCycle(rise=0.3, start=0.04, final=0.0))
    assert found[0] == pytest.approx(0.04)
    assert found[30] == pytest.approx(1.0)
    assert (np.diff(found[:31]) > 0).all()
    assert (np.diff(found[30:]) < 0).all()


@given(
    st.sampled_from([*WARMED, RESTARTS, OneCycle(0.3, 0.04, 0.0), OneCycle(0.0, 0.5, 0.1), OneCycle(1.0, 0.5, 0.1)]),
    st.integers(1, 10_000_000),
    st.floats(0, 1),
)
def test_a_rate_is_the_same_alone_and_among_all_others(schedule: Schedule, total: int, where: float) -> None:
    applied = int(where * total)
    around = np.arange(max(0, applied - 3), applied + 3)
    alone = schedule.factor(np.array([applied]), total)[0]
    assert np.isfinite(alone)
    assert 0 <= alone <= 1
    assert alone == pytest.approx(schedule.factor(around, total)[around == applied][0], rel=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Constant(-1),
        lambda: Cosine(0, 1.5),
        lambda: Linear(0, -0.1),
        lambda: Step(0, 0, 0.1),
        lambda: Step(0, 10, 2.0),
        lambda: OneCycle(1.3, 0.1, 0.1),
        lambda: OneCycle(0.3, -1.0, 0.1),
        lambda: WarmupStableDecay(0, 1.1, 0.0, Decay.sqrt),
        lambda: Polynomial(0, 0.0, 0.0),
        lambda: CosineRestarts(0, 0, 1.0, 0.0),
        lambda: CosineRestarts(0, 10, 0.5, 0.0),
        lambda: Piecewise(0, [0, 10], [1.0], linear=False),
        lambda: Piecewise(0, [5, 10], [1.0, 0.1], linear=False),
        lambda: Piecewise(0, [0, 10], [1.0, -0.1], linear=False),
        lambda: Plateau(1.0, 3, "loss"),
        lambda: Plateau(0.1, -1, "loss"),
    ],
)
def test_numbers_that_make_no_schedule_are_refused(wrong: "type[Schedule]") -> None:
    with pytest.raises(ValueError, match=r"is .*, which "):
        wrong()


@pytest.mark.parametrize("kind", GOOD)
def test_factors_may_come_as_anything_that_is_a_row_of_numbers(kind: str) -> None:
    found = checked(Giving(kind), 10)
    assert found.dtype == np.float64
    assert found.shape == (11,)


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_factor_for_each_step_is_refused_in_words(kind: str) -> None:
    with pytest.raises(ConfigError, match=BAD[kind][1]):
        checked(Giving(kind), 10)
