"""Predictions are kept by the sample's index, the same on any number of ranks."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from phalanx.exit.codes import ConfigError
from phalanx.train.evaluation.predictions import Predictions
from phalanx.train.loading.shard import Span
from phalanx.train.tasks.classification import Classification
from phalanx.train.tasks.task import Task
from tests.ranks import Results, Starter
from tests.train.small_runs import planted

SET = "{_target_: tests.train.faulty_parts.Planted, samples: %d}"
WORDS = (*planted(96), f"data.eval={{val: {SET % 40}, hard: {SET % 23}}}", f"data.test={SET % 31}", "eval.batch=8")
RUN = (*WORDS, "train.steps=6", "train.epochs=null", "eval.every=3", "train.precision=fp64")


def rows(run: Results, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "predictions" / name).read_text().splitlines()]


def test_they_are_of_the_first_samples_in_their_order_on_any_number_of_ranks(starter: Starter) -> None:
    plain = starter.train(2, *RUN, name="plain")
    runs = [starter.train(ranks, *RUN, "eval.predictions=29", name=f"on{ranks}") for ranks in (1, 2, 3)]
    assert runs[1].sha256 == plain.sha256
    assert not (plain.folder / "predictions").exists()
    sizes = {"val": 29, "hard": 23, "test": 29}
    for run in runs:
        files = sorted(path.name for path in (run.folder / "predictions").iterdir())
        assert files == sorted(
            [f"{split}_step_0000000{step}.jsonl" for split in ("val", "hard") for step in (3, 6)]
            + ["test_step_00000006.jsonl"]
        )
        for split, size in sizes.items():
            found = rows(run, f"{split}_step_00000006.jsonl")
            assert [row["index"] for row in found] == list(range(size))
            alone = rows(runs[0], f"{split}_step_00000006.jsonl")
            assert [{**row, "score": 0} for row in found] == [{**row, "score": 0} for row in alone]
            assert [row["score"] for row in found] == pytest.approx([row["score"] for row in alone], rel=1e-9)
    hard = rows(runs[0], "hard_step_00000006.jsonl")
    right = sum(row["prediction"] == row["label"] for row in hard)
    assert right / 23 == pytest.approx(runs[0].summary["eval"]["hard"]["accuracy"])


def test_a_task_that_predicts_nothing_is_told_before_training(starter: Starter) -> None:
    own = ("~task", "+task._target_=tests.zoo.tasks.Plain", "eval.predictions=4")
    ended = starter.run(2, *RUN, *own, "run.name=r")
    assert set(ended.codes) == {2}
    assert "Plain has no method that gives them. Write predictions(self, model, batch)" in ended.output
    assert not (starter.folder / "runs/r").exists()


class Given(Classification):
    def __init__(self, found: Any) -> None:
        super().__init__(2, 0.0)
        self.found = found

    def predictions(self, model: nn.Module, batch: Any) -> Any:
        return self.found


def kept(task: Task, samples: int) -> Sequence[Any]:
    found = Predictions(task, 100)
    found.take(nn.Identity(), torch.zeros(samples, 1), Span(5, 5 + samples))
    return found._rows


def test_what_is_predicted_may_be_anything_that_json_holds() -> None:
    row = {"a": torch.tensor([1.0, float("nan")]), "b": torch.tensor(3), "c": {"d": ("x", None, True)}}
    assert kept(Given([row]), 1) == [{"index": 5, "a": [1.0, None], "b": 3, "c": {"d": ["x", None, True]}}]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (torch.zeros(2), "gave a Tensor, and not a list of dicts"),
        ([1, 2], "gave a list, and not a list of dicts"),
        ([{}], "gave 1 rows for the 2 samples with the indices 5 to 6"),
        ([{"a": object()}] * 2, "gave a object, which no line of JSON holds"),
    ],
)
def test_what_is_no_row_a_sample_is_told(found: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        kept(Given(found), 2)
