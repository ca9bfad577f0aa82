"""torchmetrics' metrics, transformers' models and torchvision's detectors in tasks, on any number of ranks."""

import math
from typing import Any

import pytest
import torch

from phalanx.train.data.digits import Digits
from phalanx.train.distributed.plain_data import pack, unpack
from phalanx.train.loading.fetch import PositionDataset
from phalanx.train.loading.order import SequentialOrder
from phalanx.train.loading.shard import Span
from phalanx.train.models.mlp import MLP
from phalanx.train.tasks.detection import _with_masks
from phalanx.train.tasks.torch_metric import TorchMetric
from tests.ranks import Results, Starter

pytestmark = pytest.mark.zoo

_MULTICLASS = "torchmetrics.classification.Multiclass"
METRICS = {
    "f1": f"{{_target_: {_MULTICLASS}F1Score, num_classes: 10}}",
    "recall": f"{{_target_: {_MULTICLASS}Recall, num_classes: 10, average: none}}",
    "auroc": f"{{_target_: {_MULTICLASS}AUROC, num_classes: 10}}",
    "both": "{_target_: torchmetrics.MetricCollection, metrics: {"
    f"ap: {{_target_: {_MULTICLASS}AveragePrecision, num_classes: 10}}, "
    f"auc: {{_target_: {_MULTICLASS}AUROC, num_classes: 10}}}}}}",
}


def library_metrics() -> dict[str, Any]:
    from torchmetrics.classification import (
        MulticlassAUROC,
        MulticlassAveragePrecision,
        MulticlassF1Score,
        MulticlassRecall,
    )

    return {
        "f1": MulticlassF1Score(10),
        "recall": MulticlassRecall(10, average=None),
        "auroc": MulticlassAUROC(10),
        "both/ap": MulticlassAveragePrecision(10),
        "both/auc": MulticlassAUROC(10),
    }


def lines(run: Results, split: str = "eval") -> list[dict[str, Any]]:
    return [{**line, "time": 0} for line in run.metrics(split)]


def test_metrics_of_torchmetrics_are_those_of_one_process_on_any_number_of_ranks(starter: Starter) -> None:
    """Counts, a number a class, scores that are kept, and a collection; also where a rank meets no batch."""
    task = [f"+task.metrics.{name}={node}" for name, node in METRICS.items()]
    run = (
        "model=mlp",
        "train.precision=fp64",
        "train.steps=9",
        "checkpoint.best_metric=recall/3",
        "checkpoint.best_mode=max",
    )
    weights = starter.train(1, *run, *task, name="weights").folder
    same = (*run, *task, f"train.init_from='{weights}'", "optim.lr=1e-300", "train.steps=1")
    found = [
        starter.train(ranks, *same, f"eval.batch={batch}", name=f"on{ranks}by{batch}")
        for ranks, batch in ((1, 359), (1, 50), (2, 50), (3, 7), (3, 1000))
    ]
    model = MLP(28 * 28, [32], 10, 0.0).double().eval()
    model.load_state_dict(found[0].weights())
    inputs, labels = PositionDataset(Digits("held_out"), SequentialOrder(), None, 0).__getitems__(Span(0, 359))
    with torch.no_grad():
        logits = model(inputs.double())
    expected: dict[str, float] = {}
    for name, metric in library_metrics().items():
        value = metric(logits, torch.as_tensor(labels).long())
        expected |= {f"{name}/{i}": v for i, v in enumerate(value.tolist())} if value.dim() else {name: float(value)}
    for run_of in found:
        line = run_of.metrics("eval")[-1]
        assert {name: line[name] for name in expected} == expected
        assert run_of.summary["best"]["value"] == expected["recall/3"]


def test_a_classifier_of_transformers_takes_dicts_and_answers_with_a_model_output(starter: Starter) -> None:
    data = [
        f"{key}={{_target_: tests.libraries.scored_data.Tokens, samples: {n}}}"
        for key, n in (("+data.train", 48), ("+data.eval", 21))
    ]
    model = (
        "~model",
        "+model={_target_: tests.libraries.scored_data.tiny_bert}",
        "~data.train",
        "~data.eval",
        "data.augment=null",
    )
    steps = (
        "train.steps=6",
        "train.epochs=null",
        "train.global_batch=8",
        "eval.batch=4",
        "train.precision=fp64",
        "eval.every=3",
    )
    tasks = {
        "classes": ("task.classes=3", "checkpoint.best_metric=accuracy"),
        "own": ("task=model_loss", "checkpoint.best_metric=loss"),
    }
    runs = {
        name: [starter.train(ranks, *model, *data, *steps, *task, name=f"{name}{ranks}") for ranks in (1, 2)]
        for name, task in tasks.items()
    }
    for one, two in runs.values():
        for alone, shared in zip(lines(one), lines(two), strict=True):
            assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-9)
    by_task, by_model = (lines(of[0]) for of in runs.values())
    assert [line["loss"] for line in by_model] == pytest.approx([line["loss"] for line in by_task], rel=1e-9)


def test_a_detector_of_torchvision_trains_and_has_a_mean_average_precision(starter: Starter) -> None:
    data = [
        f"{key}={{_target_: tests.libraries.scored_data.Boxes, samples: {n}}}"
        for key, n in (("+data.train", 24), ("+data.eval", 10))
    ]
    words = (
        *("~model", "+model={_target_: tests.libraries.scored_data.tiny_faster_rcnn}", "~data.train", "~data.eval"),
        *(
            "data.augment=null",
            "task=detection",
            "task.class_metrics=true",
            "checkpoint.best_metric=map",
            "optim.lr=3e-3",
        ),
        *("train.epochs=null", "train.global_batch=4", "eval.batch=4"),
    )
    run = starter.train(2, *words, *data, "train.steps=40", "eval.every=20", name="run")
    first, last = run.metrics("eval")
    assert last["loss"] < first["loss"]
    assert last["map_50"] > 0.3
    assert last["map"] == pytest.approx((last["map/1"] + last["map/2"]) / 2)
    assert {"loss_classifier", "loss_rpn_box_reg", "map/mar_100"} <= last.keys()
    same = (*words, *data, f"train.init_from='{run.folder}'", "train.steps=1", "optim.lr=1e-300")
    alike = [starter.train(ranks, *same, name=f"on{ranks}").metrics("eval")[-1] for ranks in (1, 2, 3)]
    for line in alike[1:]:
        numbers = {name: value for name, value in line.items() if name.startswith("map")}
        assert numbers == {name: alike[0][name] for name in numbers}
        assert not math.isnan(numbers["map"] or math.nan)


def test_mean_average_precision_of_masks_is_merged_as_if_one_rank_had_seen_all() -> None:
    from torchmetrics.detection import MeanAveragePrecision

    draw = torch.Generator().manual_seed(0)

    def picture(scored: bool) -> dict[str, torch.Tensor]:
        masks = torch.rand(4, 1, 16, 16, generator=draw) > 0.4
        masks[:, :, :, 8:] = False
        found = {"masks": masks.float() if scored else masks.squeeze(1), "labels": torch.tensor([0, 1, 1, 2])}
        return {**found, "scores": torch.rand(4, generator=draw)} if scored else found

    pairs = [([_with_masks(picture(True))], [_with_masks(picture(False))]) for _ in range(5)]
    whole, first, second, empty = (TorchMetric(MeanAveragePrecision(iou_type="segm")) for _ in range(4))
    for i, pair in enumerate(pairs):
        whole.update(*pair)
        (first if i < 3 else second).update(*pair)
    others = [TorchMetric(MeanAveragePrecision(iou_type="segm")) for _ in range(2)]
    for other, sent in zip(others, (second, empty), strict=True):
        other.load_state_dict(unpack(pack(sent.state_dict(), "the state"), torch.device("cpu")))
    first.merge(others)
    expected = whole.compute()
    assert isinstance(expected, dict)
    assert 0 < expected[""] < 1
    assert first.compute() == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
