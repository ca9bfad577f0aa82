"""Metrics that are no ratio: tried before training, refused in words, told by the line of their own code."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from phalanx.compose.compose import compose
from phalanx.config.schema import CheckpointConfig, Config
from phalanx.exit.codes import ConfigError
from phalanx.train.checkpoint.weights import weights_sha256
from phalanx.train.engine.sanity_check import sanity_check
from tests.ranks import Starter
from tests.train.built_parts import built_of, moved
from tests.train.small_runs import planted
from tests.zoo.metrics import AUC, WRONG, MacroF1

EVALUATED = ("data.eval={_target_: tests.train.faulty_parts.Planted, samples: 50}", "eval.batch=8", "train.steps=4")
BESIDE = {
    "no update": r"has n, and ratios\(\) returned nothing to update it with .* the arguments of Counted.update",
    "an unknown update": r"an Update of m, and its metrics\(\) has n",
    "the metric itself": r"returned the Metric m itself. Return what updates it, such as {\"m\": Update",
}


@pytest.fixture(scope="module")
def config() -> Config:
    return compose([*planted(32), *EVALUATED, "train.threads=1", "wandb.mode=disabled"]).config


def with_task(config: Config, name: str, **arguments: Any) -> Config:
    return replace(config, task={"_target_": f"tests.zoo.metrics.{name}", **arguments})


def with_best(config: Config, best: str | None, **changes: Any) -> Config:
    checkpoint: CheckpointConfig = replace(config.checkpoint, best_metric=best)
    return replace(config, checkpoint=checkpoint, **changes)


def with_scored(config: Config) -> Config:
    return with_task(config, "Scored", classes=10, label_smoothing=0.0)


@pytest.mark.parametrize("seed", range(40))
def test_the_metrics_that_the_tests_use_are_scikit_learns_to_the_last_digit(seed: int) -> None:
    """With ties, and with classes that are missing."""
    from sklearn.metrics import f1_score, roc_auc_score  # a second, which each process that collects tests would take

    draw = np.random.default_rng(seed)
    scores = draw.integers(-9, 9, (60, 3)) / 7 if seed % 2 else draw.normal(size=(60, 3))
    labels = draw.integers(0, 3 if seed % 4 else 2, 60)
    f1, auc = MacroF1(3), AUC()
    for part in np.array_split(np.arange(60), 7):
        for metric in (f1, auc):
            metric.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]))
    found = f1.compute()
    expected = f1_score(labels, scores.argmax(1), labels=range(3), average=None, zero_division=0)
    assert [found[str(i)] for i in range(3)] == expected.tolist()
    assert found["macro"] == f1_score(labels, scores.argmax(1), labels=range(3), average="macro", zero_division=0)
    for kind, value in auc.compute().items():
        if kind in labels:
            assert value == roc_auc_score(labels == kind, scores[:, kind])
        else:
            assert np.isnan(value)


@pytest.mark.parametrize("kind", [*WRONG, *BESIDE])
def test_what_cannot_be_a_metric_is_refused_in_words_before_training(kind: str, config: Config, switches: None) -> None:
    says = BESIDE[kind] if kind in BESIDE else WRONG[kind][1]
    config, world, parts = built_of(with_task(config, "Wrong", kind=kind))
    with pytest.raises(ConfigError, match=says):
        sanity_check(config, parts, world)


def test_the_best_checkpoint_may_be_told_by_a_number_of_a_class(config: Config, switches: None) -> None:
    for best in ("f1/macro", "f1/3", "auc/0", "accuracy"):
        _, world, parts = built_of(with_scored(config))
        sanity_check(with_best(config, best), parts, world)
    with pytest.raises(ConfigError, match=r"best_metric=f1/cat is no metric of the task.* f1/macro, f1/0, .* auc/9"):
        sanity_check(with_best(config, "f1/cat"), parts, world)


def test_that_metrics_are_of_evaluations_alone_is_said_where_there_is_none(
    config: Config, switches: None, caplog: pytest.LogCaptureFixture
) -> None:
    without = replace(config, data=replace(config.data, eval=None))
    _, world, parts = built_of(with_scored(without))
    with caplog.at_level(logging.WARNING):
        sanity_check(with_best(without, None), parts, world)
    assert "f1, auc of the task are computed in evaluations alone, and data.eval=null" in caplog.text
    with pytest.raises(ConfigError, match=r"best_metric=f1/macro is computed in evaluations alone, and data.eval=null"):
        sanity_check(with_best(without, "f1/macro"), parts, world)


def test_metrics_leave_training_and_one_another_alone(config: Config, switches: None) -> None:
    """However often is evaluated: no bit of the weights, and each evaluation of the same weights is the same."""
    found, seen = set(), []
    for every in (1, None):
        config, world, parts = built_of(with_task(config, "Careless", classes=10, label_smoothing=0.0))
        evaluation = parts.evaluations.sets["eval"]
        sanity_check(config, parts, world)
        for work in parts.loader.from_step(0):
            parts.step(moved(work, parts.mover))
            if every is not None:
                twice = [evaluation(parts.state.model, parts.state.updater.average, world).metrics for _ in range(2)]
                assert twice[0] == twice[1]
                seen.append(twice[0]["drawn"])
        found.add(weights_sha256(parts.state.model.state_dict()))
        assert parts.task.evaluations == 0  # type: ignore[attr-defined]
    assert len(found) == 1
    assert len(set(seen)) == 1, "it draws the same numbers each time"


def test_an_update_is_without_autograd_and_in_the_dtypes_of_its_code(config: Config, switches: None) -> None:
    """What a model leaves behind is not kept, and a precision of the model is none of the metric's."""
    from phalanx import Metric

    _, world, parts = built_of(with_scored(config))
    from phalanx.train.tasks.metric import Update
    from phalanx.train.tasks.metric_set import MetricSet

    class Looking(MacroF1):
        def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
            assert not torch.is_grad_enabled()
            assert not logits.requires_grad
            assert (logits @ logits.T).dtype == torch.float32

    class Looked(type(parts.task)):  # type: ignore[misc]
        def metrics(self) -> dict[str, Metric]:
            return {"f1": Looking(10)}

    metrics = MetricSet(Looked(10, 0.0), world)
    with torch.autocast("cpu", torch.bfloat16):
        metrics.update({"f1": Update(torch.ones(4, 10, requires_grad=True), labels=torch.zeros(4))}, ["loss"])


@pytest.mark.parametrize(("at", "steps"), [("update", 1), ("merge", 1), ("compute", 1)])
def test_an_error_in_a_metric_is_told_by_its_own_line_on_any_rank(starter: Starter, at: str, steps: int) -> None:
    run = (
        *planted(),
        *EVALUATED[:2],
        "train.steps=1",
        "~task",
        f"+task={{_target_: tests.zoo.metrics.Failing, at: {at}}}",
    )
    ended = starter.run(2, *run, "eval.batch=16", "data.eval.samples=100", "run.name=run")
    assert ended.codes == [1, 1], ended.output
    assert f"ValueError: no {at} any more" in ended.output
    assert f"in an evaluation, after step {steps}" in ended.output
    assert "tests/zoo/metrics.py" in ended.output
    assert f" in {at}" in ended.output


def test_ranks_agree_on_numbers_that_draw(starter: Starter) -> None:
    """What is drawn for a batch is decided by its number, and what compute draws by nothing."""
    run = (
        *planted(),
        *EVALUATED,
        "~task",
        "+task={_target_: tests.zoo.metrics.Careless, classes: 10, label_smoothing: 0.0}",
    )
    found = [starter.train(ranks, *run, name=f"on{ranks}").metrics("eval")[-1]["drawn"] for ranks in (1, 3)]
    assert found[0] == found[1]
