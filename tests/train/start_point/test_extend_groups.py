"""A run is extended with its optimizers' state, whatever groups, optimizers and phases it has, and other values of them."""

import signal
from typing import Any

import pytest
import torch

from phalanx.train.start_point.group_changes import GroupChanges, group_changes
from tests.ranks import Results, Starter, quoted
from tests.train.freezing import test_phases
from tests.train.small_runs import planted
from tests.train.stopping import test_stopping

RUN = (
    *planted(samples=64),
    *("optim=sgd", "optim.lr=0.05", "optim.momentum=0.9", "~optim.fused", "train.precision=fp64", "schedule=constant"),
    *("train.epochs=null", "checkpoint.every=2", "log.every=1"),
)
ADAM = "optimizer: {_target_: torch.optim.Adam, lr: 0.004}"
GROUPS = "+optim.groups=[{match: '^layers.0', lr: %s, momentum: %s}, {match: bias, " + ADAM + ", lr: %s%s}]"
GIVEN = GROUPS % (0.02, 0.8, 0.003, "")


def extend(run: Results, step: int | None = None) -> str:
    named = run.folder if step is None else run.folder / f"checkpoints/step_{step:08d}"
    return f"train.extend_from={quoted(str(named))}"


def optimizers(run: Results, step: int) -> list[dict[str, Any]]:
    saved = torch.load(run.folder / f"checkpoints/step_{step:08d}/state.pt", weights_only=True)["update"]
    parts = saved["phases"].values() if "phases" in saved else [saved]
    return [each for part in parts for each in (part["optimizer"], *part.get("optimizers", ()))]


@pytest.mark.parametrize("ranks", [1, 2])
def test_several_optimizers_trained_longer_are_as_if_the_run_had_never_ended(starter: Starter, ranks: int) -> None:
    """From the end, from an unfinished run that was killed, and from one that stopped early."""
    whole = starter.train(ranks, *RUN, GIVEN, "train.steps=8", name="whole")
    short = starter.train(ranks, *RUN, GIVEN, "train.steps=4", name="short")
    longer = starter.train(ranks, *RUN, GIVEN, "train.steps=8", extend(short), name="longer")
    assert longer.sha256 == whole.sha256
    (start,) = longer.events("start")
    assert {name: start[name] for name in start if name.startswith("lr")} == {
        "lr": {"before": 0.05, "after": 0.05},
        "lr/layers.0": {"before": 0.02, "after": 0.02},
        "lr/bias": {"before": 0.003, "after": 0.003},
    }
    kill = [word for word in RUN if not word.startswith("+data.train")]
    at = ("+data.train.samples=64", f"+data.train.kill_at={8 * 5}")
    assert -signal.SIGKILL in starter.run(ranks, *kill, *at, GIVEN, "train.steps=8", "run.name=killed").codes
    killed = starter.results("killed")
    from_killed = starter.train(ranks, *kill, *at, GIVEN, "train.steps=8", extend(killed), name="from_killed")
    assert from_killed.events("start")[0]["step"] == 4
    assert from_killed.sha256 == whole.sha256


@pytest.mark.parametrize("ranks", [1, 2])
def test_groups_take_other_rates_numbers_and_schedules_and_keep_the_state(starter: Starter, ranks: int) -> None:
    """By hand with torch's formulas; another batch, too. A rate that jumps is told with its group."""
    short = starter.train(ranks, *RUN, GIVEN, "train.steps=4", name="short")
    other = GROUPS % (0.08, 0.5, 0.002, ", schedule: {_target_: phalanx.schedules.Linear, warmup_steps: 0, final: 0.0}")
    words = (*RUN, other, "train.steps=5", "train.global_batch=16", extend(short))
    ended = starter.run(ranks, *words, "run.name=longer")
    assert ended.codes == [0] * ranks, ended.output
    longer = starter.results("longer")
    (start,) = longer.events("start")
    assert start["lr"] == {"before": 0.05, "after": 0.05}
    assert start["lr/layers.0"] == {"before": 0.02, "after": 0.08}
    assert start["lr/bias"]["before"] == 0.003
    assert start["lr/bias"]["after"] == pytest.approx(0.002 * (1 - 4 / 5))
    assert ended.output.count("lr/layers.0: 0.02 before, in the last step of the run that is extended") == 1
    assert longer.summary["samples"] == 4 * 8 + 16
    (sgd, adam), (its_sgd, its_adam) = optimizers(short, 4), optimizers(longer, 5)
    assert [group["momentum"] for group in sgd["param_groups"]] == [0.9, 0.8]
    assert [group["momentum"] for group in its_sgd["param_groups"]] == [0.9, 0.5]
    names = [name for name in short.weights() if "weight" in name and "layers.0" not in name]
    names += ["layers.0.weight", "layers.0.bias"]
    for index, name in enumerate(names):
        rate = 0.08 if name.startswith("layers.0") else 0.05
        moved = (short.weights()[name] - longer.weights()[name]) / rate
        torch.testing.assert_close(its_sgd["state"][index]["momentum_buffer"], moved, rtol=1e-9, atol=1e-12)
    for index, was in adam["state"].items():
        assert its_adam["state"][index]["step"] == was["step"] + 1 == 5
    (resumed,) = [line for line in longer.metrics("train") if line["step"] == 5]
    assert resumed["lr/layers.0"] == 0.08


def test_a_run_that_stopped_early_goes_on_with_another_schedule_and_batch(starter: Starter) -> None:
    stopped = starter.train(1, *test_stopping.RUN, *test_stopping.STOP, name="stopped")
    step, samples = stopped.summary["steps"], stopped.summary["samples"]
    other = ("schedule=linear", "schedule.warmup_steps=0", "optim.lr=0.1", "train.global_batch=16")
    longer = starter.train(2, *test_stopping.RUN, *other, extend(stopped), name="longer")
    assert (longer.summary["steps"], longer.summary["ended_by"]) == (60, "steps")
    assert longer.summary["samples"] == samples + 16 * (60 - step)
    (start,) = longer.events("start")
    assert start["lr"]["before"] == pytest.approx(stopped.metrics("train")[-1]["lr"])
    assert start["lr"]["after"] == pytest.approx(0.1 * (1 - step / 60))


def test_what_would_share_the_parameters_otherwise_is_refused_before_training(starter: Starter) -> None:
    short = starter.train(1, *RUN, GIVEN, "train.steps=2", name="short")
    ended = starter.run(2, *RUN, GIVEN.replace("bias", "weight"), "train.steps=4", extend(short), "run.name=longer")
    assert (ended.codes, ended.output.count("error: ")) == ([2, 2], 1)
    assert "Of optim.groups rates, schedules and numbers may change, but neither what is matched" in ended.output
    assert not (starter.folder / "runs/longer").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_task_with_phases_trained_longer_is_as_if_the_run_had_never_ended(starter: Starter, ranks: int) -> None:
    """With an optimizer for each phase, from its end and from a checkpoint of an unfinished run, and with other rates."""
    own = "+optim.groups=[{match: '^generator', lr: %s, optimizer: {_target_: torch.optim.RMSprop}}]"
    run = (*test_phases.run(), "schedule=constant", "checkpoint.best_metric=null")
    whole = starter.train(ranks, *run, own % 0.003, name="whole")
    short = starter.train(ranks, *run, own % 0.003, "train.steps=5", name="short")
    longer = starter.train(ranks, *run, own % 0.003, extend(short), name="longer")
    assert longer.sha256 == whole.sha256
    assert longer.timeless() == [line for line in whole.timeless() if line["step"] > 5]
    (short.folder / "summary.json").unlink()
    assert starter.train(ranks, *run, own % 0.003, extend(short, 3), name="middle").sha256 == whole.sha256
    ended = starter.run(ranks, *run, own % 0.03, extend(whole), "train.steps=10", "run.name=faster")
    assert ended.codes == [0] * ranks, ended.output
    (start,) = starter.results("faster").events("start")
    assert start["lr"] == start["lr/d"] == {"before": 0.01, "after": 0.01}
    assert start["lr/g"] == {"before": 0.003, "after": 0.03}
    assert "lr/g: 0.003 before" in ended.output
    assert starter.results("faster").metrics("train")[-1]["lr/g"] == 0.03
    for was, its in zip(optimizers(whole, 8), optimizers(starter.results("faster"), 10), strict=True):
        assert [each["step"] + 2 for each in was["state"].values()] == [each["step"] for each in its["state"].values()]


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({"lr": 0.1}, {"lr": 0.2}, GroupChanges(frozenset({"lr"}), rescheduled=True)),
        ({}, {"lr": 0.2}, GroupChanges(frozenset({"lr"}), rescheduled=True)),
        ({}, {"schedule": {"_target_": "x"}}, GroupChanges(frozenset(), rescheduled=True)),
        ({"weight_decay": 0.1}, {}, GroupChanges(frozenset({"weight_decay"}), rescheduled=False)),
        ({"weight_decay": 0.1}, {"weight_decay": 0.0}, None),
        ({"betas": [0.9, 0.9]}, {"betas": [0.9, 0.8]}, GroupChanges(frozenset({"betas"}), rescheduled=False)),
        ({}, {"decay_1d": True}, None),
        ({"name": "a"}, {"name": "b"}, None),
        ({"optimizer": {"_target_": "a"}}, {"optimizer": {"_target_": "b"}}, None),
    ],
)
def test_only_what_leaves_the_parameters_where_they_are_may_change(
    before: dict[str, Any], now: dict[str, Any], found: GroupChanges | None
) -> None:
    old, new = ({"weight_decay": 0.5, "groups": [{"match": "x", **each}]} for each in (before, now))
    assert group_changes(old, new) == found
    assert group_changes(old, {**new, "groups": []}) is None
    if found is not None and "lr" in found.names:
        by_layer = group_changes({**old, "layer_decay": 0.5}, {**new, "layer_decay": 0.5})
        assert (by_layer is None) == (("lr" in before) != ("lr" in now))
