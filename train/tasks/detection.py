"""Boxes in pictures, by models that compute their losses themselves, as torchvision's detectors do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import Dataset

from phalanx.exit.codes import ConfigError

from ..loading.batch import Batch, shapes
from ..sinks.shown import Shown
from .drawing.boxes import boxes as draw_boxes
from .drawing.labelled_images import class_names
from .metric import Update
from .model_loss import in_full, losses_of
from .task import Ratio, Task

MOST_DRAWN = 8  # images with their boxes: a detector takes its time for each


class Detection(Task):
    """A batch is (images, targets): a list of pictures (channels, h, w), and a dict of `boxes` (n, 4), `labels` for each.

    In training the model is called with both and answers with its losses, whose sum is the loss; in an evaluation with the
    images alone, and answers with a dict of `boxes`, `scores` and `labels` for each. The loss of an evaluation is the
    model's in training mode, its BatchNorm and Dropout aside. Mean average precision (COCO's, by torchmetrics and
    pycocotools) is `map`, with `map_50`, `map_75` and more; `map/<class>` with class_metrics.

    With `iou_type` segm it is of `masks`, which targets have as (n, h, w) and answers as (n, 1, h, w), as those of
    torchvision's Mask R-CNN. `names` of the labels, from 0 on, are written in the pictures that it shows; left
    out they are the data set's `classes`.
    """

    predicts = "image"

    def __init__(
        self,
        class_metrics: bool = False,
        box_format: str = "xyxy",
        iou_type: str = "bbox",
        names: Sequence[str] | None = None,
    ) -> None:
        self._names = names
        self._masks = iou_type == "segm"
        self._options = {"class_metrics": class_metrics, "box_format": box_format, "iou_type": iou_type}

    def metrics(self) -> Mapping[str, Any]:
        try:
            from torchmetrics.detection import MeanAveragePrecision

            metric = MeanAveragePrecision(**self._options)
        except ImportError as error:  # it asks for pycocotools by this, too
            raise ConfigError(
                f"Mean average precision needs torchmetrics and pycocotools ({error}). "
                "Type: pip install 'torchmetrics[detection]'"
            ) from None
        metric.warn_on_many_detections = (
            False  # detectors answer with more, and COCO's metric takes the best 100 of them
        )
        return {"map": metric}

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        images, targets = _pair(batch)
        if model.training:
            return _ratios(losses_of(model(images, targets)), len(images))
        with _with_losses(model):
            losses = losses_of(model(images, targets))
        found = model(images)
        if self._masks:
            found, targets = [_with_masks(each) for each in found], [_with_masks(each) for each in targets]
        return {**_ratios(losses, len(images)), "map": Update(found, targets)}

    def predictions(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The boxes found in each picture, with their labels and scores."""
        return [{name: found[name] for name in ("boxes", "labels", "scores")} for found in model(_pair(batch)[0])]

    def predict(self, model: nn.Module, raw: Sequence[torch.Tensor]) -> list[dict[str, Any]]:
        """The boxes in each picture, the surest first, each with label, score and box; the score is that of the first."""
        device = next(model.parameters()).device
        return [self._told(found) for found in model([image.to(device) for image in raw])]

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        images, targets = _pair(batch)
        few, form = min(MOST_DRAWN, self.now.shown), str(self._options["box_format"])
        found = model(images[:few])
        return {"boxes": draw_boxes(images, targets, found, names=self._names, box_format=form, limit=few)}

    def _told(self, found: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        names = self._names or ()
        order = found["scores"].argsort(descending=True)
        rows = zip(*(found[name][order].tolist() for name in ("labels", "scores", "boxes")), strict=True)
        boxes = [
            {"label": names[label] if label < len(names) else label, "score": score, "box": box}
            for label, score, box in rows
        ]
        return {"prediction": boxes, "score": boxes[0]["score"] if boxes else None}

    def check(self, dataset: Dataset[Any]) -> None:
        self._names = self._names or class_names(dataset)


def _with_masks(found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Masks as torchmetrics takes them, bool of shape (n, h, w); torchvision's are probabilities (n, 1, h, w)."""
    masks = found["masks"]
    there = masks > 0.5 if masks.is_floating_point() else masks != 0
    return {**found, "masks": there.squeeze(1) if there.dim() == 4 else there}


def _ratios(losses: Mapping[str, torch.Tensor], samples: int) -> dict[str, Ratio]:
    """The sum of the losses, and each by its name."""
    total = torch.stack([in_full(loss) for loss in losses.values()]).sum()
    return {
        "loss": Ratio(total * samples, samples),
        **{name: Ratio(loss.detach() * samples, samples) for name, loss in losses.items() if name != "loss"},
    }


@contextmanager
def _with_losses(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in training mode but for what would learn from the batch or drop parts of it."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = not isinstance(module, _BatchNorm | _DropoutNd)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _pair(batch: Batch) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Images and targets; samples that were put together one by one come as two lists or tuples."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        images, targets = (list(each) if isinstance(each, list | tuple | torch.Tensor) else each for each in batch)
        if isinstance(targets, list) and len(images) == len(targets) and all(isinstance(t, dict) for t in targets):
            return images, targets
    raise ConfigError(
        f"This task's batches are (images, targets), two lists with an entry a picture, and the data give {shapes(batch)} "
        f"in a {type(batch).__name__}. Return (image, {{'boxes': …, 'labels': …}}) from __getitem__, and put samples "
        "together as tuple(zip(*samples)), in data.collate"
    )
