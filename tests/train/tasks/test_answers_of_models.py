"""Models that answer with a dict, a tuple or an object, or with losses of their own; numbers derived from sums."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.answer import derived, numbers_of
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.model_answer import logits_of
from phalanx.train.tasks.model_loss import ModelLoss, losses_of
from phalanx.train.tasks.task import Ratio, Sum, Task
from tests.ranks import Starter
from tests.train.small_runs import planted

LOGITS = torch.eye(3)


@dataclass
class Answer:
    logits: torch.Tensor


class Model(nn.Module):
    """Answers with what it is given, whatever it is called with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.got = (args, kwargs)
        return self.answer


class Perplexing(Classification):
    def derive(self, sums: Mapping[str, Sum]) -> Mapping[str, float]:
        return {"perplexity": math.exp(sums["loss"].mean), "samples": sums["loss"].count}


class Derived(Task):
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Ratio]:
        raise AssertionError

    def derive(self, sums: Mapping[str, Sum]) -> Mapping[str, float]:
        found: Mapping[str, float] = self.answer
        return found


@pytest.mark.parametrize(
    "answer", [LOGITS, {"out": LOGITS}, {"loss": 1, "logits": LOGITS}, Answer(LOGITS), (LOGITS, 5)]
)
def test_logits_are_found_in_whatever_a_model_answers_with(answer: Any) -> None:
    assert logits_of(answer) is LOGITS


def test_an_answer_without_logits_says_what_is_in_it() -> None:
    for answer, says in (({"boxes": 1}, "a dict of boxes"), (7, "a int"), ((), "a tuple")):
        with pytest.raises(ConfigError, match=f"answers with {says}.* under the name logits"):
            logits_of(answer)


def test_a_dict_is_passed_by_keyword_without_its_labels() -> None:
    model, labels = Model(Answer(LOGITS)), torch.tensor([0, 1, 0])
    found = Classification(3, 0.0).ratios(model, {"input_ids": LOGITS, "mask": None, "labels": labels})
    assert model.got == ((), {"input_ids": LOGITS, "mask": None})
    assert (int(found["accuracy"].total), found["accuracy"].count) == (2, 3)


def test_the_losses_of_a_model_are_added_with_their_weights() -> None:
    model = Model({"box": torch.tensor(2.0, dtype=torch.float64), "score": torch.tensor([3.0])})
    found = ModelLoss(weights={"score": 10.0}).ratios(model, (LOGITS, [1, 2, 3]))
    assert model.got == ((LOGITS, [1, 2, 3]), {})
    assert {name: (float(ratio.total), ratio.count) for name, ratio in found.items()} == {
        "loss": (3 * 32, 3),
        "box": (6, 3),
        "score": (9, 3),
    }
    with pytest.raises(ConfigError, match=r"task\.weights names scores, and the model's losses are box, score"):
        ModelLoss(weights={"scores": 10.0}).ratios(model, (LOGITS, [1, 2, 3]))


@pytest.mark.parametrize(("count", "counted"), [("samples", 2), ("labels", 4), ("shifted_labels", 3)])
def test_a_mean_over_labels_is_counted_by_labels(count: str, counted: int) -> None:
    task, labels = ModelLoss(count=count), torch.tensor([[5, 6, -100], [-100, 7, 8]])
    ratio = task.ratios(Model({"loss": torch.tensor(0.5)}), {"input_ids": labels, "labels": labels})["loss"]
    assert (float(ratio.total), int(ratio.count)) == (counted / 2, counted)
    assert task.counts_data is (count != "samples")
    assert not ModelLoss.counts_data


def test_an_answer_without_a_loss_says_what_is_in_it() -> None:
    for answer in ({"logits": LOGITS}, LOGITS, None, {}):
        with pytest.raises(ConfigError, match=r"no loss is in it\. Pass the labels"):
            losses_of(answer)


def test_what_is_derived_is_of_the_sums_over_all_ranks_and_batches(starter: Starter) -> None:
    words = (*planted(96), "data.eval={_target_: tests.train.faulty_parts.Planted, samples: 40}", "eval.batch=7")
    task = (
        "~task",
        "+task={_target_: tests.train.tasks.test_answers_of_models.Perplexing, classes: 10, label_smoothing: 0}",
    )
    best = ("checkpoint.best_metric=perplexity", "train.steps=8", "train.epochs=null", "train.micro_batch=2")
    for ranks in (1, 2):
        run = starter.train(ranks, *words, *task, *best, name=f"on{ranks}")
        for line in run.metrics():
            assert line["perplexity"] == math.exp(line["loss"])
        assert [line["samples"] for line in run.metrics()] == [32, 32, 40], "a line is of 4 steps of 8"
        assert run.summary["best"]["value"] == run.summary["eval"]["perplexity"]


def test_what_cannot_be_derived_is_told() -> None:
    sums = {"loss": Sum(1.0, 1.0)}
    for answer, says in (
        (None, r"derive\(\) answered with nothing"),
        ({"lr": 1.0}, "a metric called lr"),
        ({"x": "high"}, "x was computed as a str"),
    ):
        with pytest.raises(ConfigError, match=says):
            derived(Derived(answer), sums)
    assert derived(Derived({"x": torch.tensor(2)}), sums) == {"x": 2.0}
    assert derived(Derived(None), {}) == {}, "of no sample"
    assert math.isnan(Sum(0.0, 0.0).mean)


def test_a_metric_of_several_numbers_may_have_one_that_is_its_own() -> None:
    assert numbers_of("map", {"": 1, "_50": 2, "3": 3}) == {"map": 1, "map_50": 2, "map/3": 3}
    assert numbers_of("f1", {"_x": 1}) == {"f1/_x": 1}
