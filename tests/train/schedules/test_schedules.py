"""A learning rate is a pure function of the number of applied steps."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from phalanx.exit.codes import ConfigError
from phalanx.train.schedules.schedule import Constant, Cosine, Linear, OneCycle, Schedule, Step
from phalanx.train.schedules.schedule import factors as checked
from tests.zoo.schedules import BAD, GOOD, Giving

TOTAL = 100
WARMED: list[Schedule] = [
    Constant(warmup_steps=10),
    Cosine(warmup_steps=10, final=0.1),
    Linear(warmup_steps=10, final=0.1),
    Step(warmup_steps=10, step_every=30, gamma=0.5),
]


def factors(schedule: Schedule, total: int = TOTAL) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The factor of every step and the one that would follow the last."""
    return schedule.factor(np.arange(total + 1), total)


def by_torch(make: Callable[..., lr_scheduler.LRScheduler], steps: int, **options: float) -> list[float]:
    """The rates that a scheduler of torch gives one step after another, of a peak rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    scheduler = make(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


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
    ("schedule", "end"), [(Cosine(10, 0.1), 0.1), (Linear(10, 0.1), 0.1), (OneCycle(0.3, 0.04, 0.01), 0.01)]
)
def test_a_decay_ends_at_its_final_share_after_the_last_step(schedule: Schedule, end: float) -> None:
    assert factors(schedule)[-1] == pytest.approx(end, abs=1e-12)


def test_constant_and_cosine_and_linear_and_step_are_torchs() -> None:
    same = {
        "constant": (Constant(0), by_torch(lr_scheduler.ConstantLR, TOTAL + 1, factor=1.0)),
        "cosine": (Cosine(0, 0.1), by_torch(lr_scheduler.CosineAnnealingLR, TOTAL + 1, T_max=TOTAL, eta_min=0.1)),
        "linear": (
            Linear(0, 0.1),
            by_torch(lr_scheduler.LinearLR, TOTAL + 1, start_factor=1.0, end_factor=0.1, total_iters=TOTAL),
        ),
        "step": (Step(0, 30, 0.5), by_torch(lr_scheduler.StepLR, TOTAL + 1, step_size=30, gamma=0.5)),
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


def test_one_cycle_rises_to_the_peak_and_then_only_falls() -> None:
    found = factors(OneCycle(rise=0.3, start=0.04, final=0.0))
    assert found[0] == pytest.approx(0.04)
    assert found[30] == pytest.approx(1.0)
    assert (np.diff(found[:31]) > 0).all()
    assert (np.diff(found[30:]) < 0).all()


@given(
    st.sampled_from([*WARMED, OneCycle(0.3, 0.04, 0.0), OneCycle(0.0, 0.5, 0.1), OneCycle(1.0, 0.5, 0.1)]),
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
    ],
)
def test_numbers_that_make_no_schedule_are_refused(wrong: "type[Schedule]") -> None:
    with pytest.raises(ValueError, match=r"is .*, which is"):
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
