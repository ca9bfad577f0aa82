"""Segmentation: its loss is torch's, its metrics those of all pixels at once, however they are split."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError
from phalanx.train.tasks.metric import Update
from phalanx.train.tasks.vision.segmentation import Segmentation

NAMES = ["sea", "land", "lake", "ice"]  # no mask has ice


class Answers(nn.Module):
    """Answers with what it is called with, or with that in a dict as torchvision's models do."""

    def __init__(self, aux: bool = False) -> None:
        super().__init__()
        self.aux = aux

    def forward(self, logits: torch.Tensor) -> Any:
        return {"out": logits, "aux": 2 * logits} if self.aux else logits


def batch(samples: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(samples)
    logits = torch.randn(samples, classes, 9, 7, generator=draw, dtype=torch.float64)
    logits[:, 3] -= 9
    masks = torch.randint(0, 3, (samples, 9, 7), generator=draw).to(torch.uint8)
    masks[torch.rand(samples, 9, 7, generator=draw) < 0.2] = 255
    return logits, masks


def evaluated(task: Segmentation, *parts: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """The metrics of one evaluation on as many ranks as there are parts, each of some batches."""
    ranks = []
    for batches in parts:
        metrics = dict(task.metrics())
        for each in batches:
            found = task.ratios(Answers().eval(), each)
            for name, metric in metrics.items():
                assert isinstance(found[name], Update)
                metric.update(*found[name].args)
        ranks.append(metrics)
    numbers: dict[str, float] = {}
    for name, metric in ranks[0].items():
        metric.merge([other[name] for other in ranks[1:]])
        value = metric.compute()
        numbers |= {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return numbers


def test_iou_is_that_of_all_pixels_at_once_on_any_number_of_ranks() -> None:
    logits, masks = batch(12)
    task = Segmentation(NAMES)
    whole = evaluated(task, [(logits, masks)])
    parts = [(logits[i : i + 2], masks[i : i + 2]) for i in range(0, 12, 2)]
    assert repr(evaluated(task, parts[:3], parts[3:])) == repr(whole)
    assert repr(evaluated(task, parts[:1], [], parts[1:])) == repr(whole)
    labelled = masks != 255
    expected = jaccard_score(masks[labelled], logits.argmax(1)[labelled], average=None, labels=[0, 1, 2])
    assert [whole[f"iou/{name}"] for name in NAMES[:3]] == pytest.approx(expected.tolist(), rel=1e-12)
    assert math.isnan(whole["iou/ice"])
    assert whole["miou"] == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 3.0, 1.0]])
def test_the_loss_is_torchs_mean_over_labelled_pixels(weights: list[float] | None) -> None:
    logits, masks = batch(5)
    ratios = Segmentation(NAMES, weights).ratios(Answers(), (logits, masks))
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, masks.long(), given, ignore_index=255)
    loss, accuracy = ratios["loss"], ratios["accuracy"]
    assert float(loss.total / loss.count) == pytest.approx(float(expected), rel=1e-12)
    right = (logits.argmax(1) == masks)[masks != 255].double().mean()
    assert int(accuracy.total) / int(accuracy.count) == pytest.approx(float(right), rel=1e-12)
    assert "miou" not in ratios  # training counts no pixels by class


def test_a_second_head_trains_with_its_weight_and_evaluations_leave_it_out() -> None:
    logits, masks = batch(4)
    task = Segmentation(NAMES, aux_weight=0.25)
    first, second = (
        F.cross_entropy(factor * logits, masks.long(), ignore_index=255, reduction="sum") for factor in (1, 2)
    )
    trained = task.ratios(Answers(aux=True).train(), (logits, masks))["loss"].total
    assert float(trained) == pytest.approx(float(first + 0.25 * second), rel=1e-12)
    assert float(task.ratios(Answers(aux=True).eval(), (logits, masks))["loss"].total) == pytest.approx(float(first))


def test_a_batch_without_labels_counts_nothing() -> None:
    logits, masks = batch(2)
    ratios = Segmentation(NAMES).ratios(Answers(), (logits, torch.full_like(masks, 255)))
    assert [float(part) for part in (*ratios["loss"], *ratios["accuracy"])] == [0, 0, 0, 0]


def test_predictions_tell_the_share_of_each_class_and_show_draws_masks() -> None:
    logits, masks = batch(3)
    task = Segmentation(NAMES)
    told = task.predictions(Answers().eval(), (logits, masks))
    assert len(told) == 3
    assert sum(told[0]["prediction"].values()) == pytest.approx(1)
    assert told[0]["label"]["land"] == pytest.approx(float((masks[0] == 1).sum() / (masks[0] != 255).sum()))
    assert task.show(Answers().eval(), (logits, masks))["masks"].encoded().startswith(b"\x89PNG")


BAD: Mapping[str, tuple[Callable[[], Segmentation], str]] = {
    "one class": (lambda: Segmentation(["sea"]), "must be the names of 2 classes"),
    "a name twice": (lambda: Segmentation(["sea", "sea", "land"]), "none of them twice"),
    "weights": (lambda: Segmentation(NAMES, [1.0, 2.0]), "Type a weight for each class"),
    "negative": (lambda: Segmentation(NAMES, [1.0, 2.0, -1.0, 1.0]), "must not be negative"),
    "ignored class": (lambda: Segmentation(NAMES, ignore_index=1), "is the class land"),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_cannot_work_are_told(name: str) -> None:
    make, told = BAD[name]
    with pytest.raises(ConfigError, match=told):
        make()


def test_data_and_models_that_do_not_fit_are_told_what_to_return() -> None:
    logits, masks = batch(2)
    for given, told in (
        (logits, "pairs of images and masks"),
        ((logits, masks[:, 0]), r"shape \(b, h, w\)"),
        ((logits, masks.float()), "wants whole numbers"),
        ((logits, masks + 2), "has the class 4, and task.classes names 4"),
        ((logits[:, :3], masks), r"answers with shape \(2, 3, 9, 7\)"),
        ((logits[..., :4], masks), r"want \(2, 4, 9, 7\)"),
    ):
        with pytest.raises(ConfigError, match=told):
            Segmentation(NAMES).ratios(Answers(), given)
