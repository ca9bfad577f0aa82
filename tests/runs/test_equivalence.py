"""The maths does not know how many ranks there are."""

import math

import pytest
import torch
from torch.nn import functional as F

from phalanx.train.data.augment import ShiftRotate
from phalanx.train.data.digits import Digits
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import Order
from phalanx.train.loading.shard import Span
from phalanx.train.models.mlp import MLP
from tests.ranks import DDP, Results, Starter
from tests.runs.random_user_code import overrides as chance
from tests.runs.weighted_task import weights_of

SPLIT = ("train.global_batch=64", "train.micro_batch=8", "eval.every=null", "checkpoint.best_metric=null")
NOISY = ("model=mlp", "model.dropout=0.3")  # the digits are augmented by default


def by_ddp(yes: bool) -> tuple[str, ...]:
    return (DDP,) if yes else ()


def norm(results: Results) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in results.weights().values()))


def distance(one: Results, other: Results) -> float:
    """Distance of two runs' weights, relative to their norm."""
    theirs = other.weights()
    squares = sum(float((t.double() - theirs[name].double()).square().sum()) for name, t in one.weights().items())
    return math.sqrt(squares) / norm(one)


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [("adam", (1, 2, 3)), ("sgd", (1, 3)), pytest.param("adam", (1, 4), marks=pytest.mark.slow)],
)
def test_eight_micro_batches_on_any_ranks_are_one_training_in_fp64(
    starter: Starter, optimizer: str, numbers: tuple[int, ...]
) -> None:
    run = (*SPLIT, *NOISY, f"optim={optimizer}", "train.precision=fp64", "train.steps=20", "train.clip_norm=1")
    one, *others = [starter.train(ranks, *run, *by_ddp(ranks == 3), name=f"on{ranks}") for ranks in numbers]
    for other in others:
        assert abs(norm(other) / norm(one) - 1) < 1e-12
        assert distance(one, other) < 1e-10  # Adam magnifies rounding where a gradient is close to zero


def test_eight_micro_batches_on_any_ranks_are_one_training_in_fp32(starter: Starter) -> None:
    run = (*SPLIT, "model.dropout=0.3", "train.steps=6")
    one, *others = [starter.train(ranks, *run, *by_ddp(ranks == 2), name=f"on{ranks}") for ranks in (1, 2, 3)]
    for other in others:
        assert abs(norm(other) / norm(one) - 1) < 1e-6


def test_shares_without_micro_batches_are_the_same_training_up_to_a_short_last_batch(starter: Starter) -> None:
    """90 samples in batches of 64: the last one has 26, which 3 ranks share as 9, 9 and 8."""
    run = ("model=mlp", "train.precision=fp64", f"train.epochs={90 / 1438}", "eval.every=null")
    one, two, three = (starter.train(ranks, *run, *by_ddp(ranks == 3), name=f"on{ranks}") for ranks in (1, 2, 3))
    assert one.summary["samples"] == three.summary["samples"] == 90
    assert distance(one, two) < 1e-12
    assert distance(one, three) < 1e-12


def test_rank_without_a_share_takes_part_with_a_zero_gradient(starter: Starter) -> None:
    """66 samples in batches of 64 leave 2 for the last one, and so nothing for the third rank."""
    run = ("model=mlp", "train.precision=fp64", f"train.epochs={66 / 1438}", "eval.every=null")
    one, three = (starter.train(ranks, *run, name=f"on{ranks}") for ranks in (1, 3))
    assert distance(one, three) < 1e-12
    assert distance(one, starter.train(3, *run, DDP, name="by DDP")) < 1e-12


@pytest.mark.parametrize(("micro_batch", "numbers"), [("8", (1, 3)), ("null", (2, 3))], ids=["8", "null"])
def test_loss_is_divided_by_what_was_counted_over_all_ranks(
    starter: Starter, micro_batch: str, numbers: tuple[int, ...]
) -> None:
    """90 samples: one whole batch and a short one, against a loop that sees each batch as a whole."""
    task = ("~task", "+task._target_=tests.runs.weighted_task.Weighted")
    end = (f"train.epochs={90 / 1438}", f"train.micro_batch={micro_batch}", "eval.every=null", "schedule=constant")
    run = ("model=mlp", "train.precision=fp64", "data.augment=null", "checkpoint.best_metric=loss", *end)
    torch.manual_seed(0)
    model = MLP(784, [32], 10, 0.0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    source = PositionDataset(Digits("train"), Order(1438, 0), None, 0)
    for span in (Span(0, 64), Span(64, 90)):
        images, labels = source.__getitems__(span)
        losses = F.cross_entropy(model(images.double()), labels, reduction="none")
        optimizer.zero_grad()
        ((losses * weights_of(labels)).sum() / weights_of(labels).sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for ranks in numbers:
        found = starter.train(ranks, *run, *task, "optim=sgd", *by_ddp(ranks == 2), name=f"on{ranks}").weights()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-13)


def test_chance_anywhere_is_the_same_on_any_ranks(starter: Starter) -> None:
    """A split in the data set's __init__, noise in its samples and in the model, from Python, NumPy and torch alike."""
    run = (*chance(), "train.micro_batch=2", "train.precision=fp64", "train.steps=20", "eval.every=10", "eval.batch=7")
    one, *others = [
        starter.train(ranks, *run, f"data.workers={workers}", name=f"on{ranks}")
        for ranks, workers in ((1, 1), (2, 0), (3, 0))
    ]
    for other in others:
        assert distance(one, other) < 1e-12
        for mine, theirs in zip(one.metrics("eval"), other.metrics("eval"), strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-12)


def test_one_rank_trains_as_a_loop_written_by_hand_does(starter: Starter) -> None:
    steps = 30
    overrides = ("model=mlp", "train.precision=fp64", f"train.steps={steps}", "schedule=constant", "eval.every=null")
    run = starter.train(1, *overrides, name="run")
    torch.manual_seed(0)
    model = MLP(784, [32], 10, 0.0).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    source = PositionDataset(Digits("train"), Order(1438, 0), ShiftRotate(2.0, 10.0), 0)
    for step in range(steps):
        images, labels = source.__getitems__(Span(64 * step, 64 * (step + 1)))
        optimizer.zero_grad()
        F.cross_entropy(model(images.double()), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found, wanted = run.weights(), model.state_dict()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-11)
