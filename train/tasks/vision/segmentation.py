"""A class for each pixel."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from phalanx.exit.codes import ConfigError

from ...loading.batch import Batch, shapes
from ...sinks.shown import Shown
from ..drawing.confusion_matrix import ConfusionMatrix
from ..drawing.masks import masks as draw_masks
from ..metric import Metric, Update
from ..model_answer import logits_of, part
from ..task import Ratio, Task
from .confusion_counts import IntersectionOverUnion, confusion_counts

_SHOWN = 4  # pictures, a row for each


class Segmentation(Task):
    """Cross entropy in nats a labelled pixel. A batch is (images, masks), masks (b, h, w) of whole numbers.

    `classes` are their names: a mask has 0 to len(classes) - 1, or `ignore_index` where nothing is known. `class_weights`,
    one a class, weigh pixels by what they are; the loss is divided by the sum of the weights. The model answers with logits
    (b, classes, h, w), or with a dict that has them under `out`, as torchvision's do; what is under `aux` there has the
    weight `aux_weight` in training (torchvision's references take 0.5, PSPNet 0.4).

    Metrics: `accuracy` of pixels, and in evaluations `miou`, the mean over the classes that are there of the intersection
    over union, with `iou/<class>`; counts, and so exact on any number of ranks.
    """

    counts_data: ClassVar[bool] = True

    def __init__(
        self,
        classes: Sequence[str],
        class_weights: Sequence[float] | None = None,
        ignore_index: int = 255,
        aux_weight: float = 0.5,
    ) -> None:
        self._classes = list(map(str, classes))
        if len(set(self._classes)) < max(2, len(self._classes)):
            raise ConfigError(
                f"task.classes={self._classes} must be the names of 2 classes or more, none of them twice"
            )
        if class_weights is not None and len(class_weights) != len(self._classes):
            raise ConfigError(
                f"task.class_weights has {len(class_weights)} numbers, and task.classes has {len(self._classes)} names. "
                "Type a weight for each class, in the same order"
            )
        if class_weights is not None and not (min(class_weights) >= 0 < sum(class_weights)):
            raise ConfigError(f"task.class_weights={list(class_weights)} must not be negative, nor all 0")
        if 0 <= ignore_index < len(self._classes):
            raise ConfigError(
                f"task.ignore_index={ignore_index} is the class {self._classes[ignore_index]}. Type one that is no class, "
                "such as 255 or -1"
            )
        self._weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self._ignore = ignore_index
        self._aux_weight = aux_weight
        self._looked_at: set[bool] = set()  # whether in training, of the batches that were looked at

    def metrics(self) -> Mapping[str, Metric]:
        return {
            "miou": IntersectionOverUnion(self._classes, mean=True),
            "iou": IntersectionOverUnion(self._classes, mean=False),
            "confusion": ConfusionMatrix(len(self._classes), self._classes),
        }

    def ratios(self, model: nn.Module, batch: Batch) -> Mapping[str, Any]:
        images, masks = self._checked(batch, model.training)
        answer = model(images)
        logits = self._logits(answer, masks)
        loss = self._loss(logits, masks)
        found = logits.argmax(1)
        labelled = masks != self._ignore
        ratios: dict[str, Any] = {"accuracy": Ratio(((found == masks) & labelled).sum(), labelled.sum())}
        if model.training:
            aux = part(answer, "aux")
            if isinstance(aux, torch.Tensor) and self._aux_weight:
                loss = Ratio(loss.total + self._aux_weight * self._loss(aux, masks).total, loss.count)
            return {"loss": loss, **ratios}
        counts = confusion_counts(found, masks, len(self._classes))
        confusion = Update(found, masks)
        return {"loss": loss, **ratios, "miou": Update(counts), "iou": Update(counts), "confusion": confusion}

    def predictions(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The share of the picture that each class is found in, the share that it is true in, and that of right pixels."""
        images, masks = self._checked(batch, model.training)
        found = self._logits(model(images), masks).argmax(1)
        return [self._told(each, mask) for each, mask in zip(found, masks, strict=True)]

    def postprocessing(self) -> dict[str, Any]:
        return {"kind": "mask", "classes": self._classes}

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        images, masks = (part[: min(_SHOWN, self.now.shown)] for part in self._checked(batch, model.training))
        found = self._logits(model(images), masks).argmax(1)
        return {"masks": draw_masks(images, masks, found, names=self._classes, ignore=self._ignore, background=None)}

    def _told(self, found: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        labelled = mask[mask != self._ignore].long()
        right = (found == mask).sum().item() / max(1, len(labelled))
        return {"prediction": self._shares(found), "label": self._shares(labelled), "score": right}

    def _shares(self, classes: torch.Tensor) -> dict[str, float]:
        counts = torch.bincount(classes.flatten(), minlength=len(self._classes)).double() / max(1, classes.numel())
        return dict(zip(self._classes, counts.tolist(), strict=True))

    def _loss(self, logits: torch.Tensor, masks: torch.Tensor) -> Ratio:
        weights = None if self._weights is None else self._weights.to(logits)
        total = F.cross_entropy(logits, masks, weights, ignore_index=self._ignore, reduction="sum")
        labelled = masks != self._ignore
        if weights is None:
            return Ratio(total, labelled.sum())
        return Ratio(total, weights[torch.where(labelled, masks, 0)].mul(labelled).sum())

    def _logits(self, answer: Any, masks: torch.Tensor) -> torch.Tensor:
        logits = logits_of(answer)
        wanted = (len(masks), len(self._classes), *masks.shape[1:])
        if tuple(logits.shape) != wanted:
            raise ConfigError(
                f"The model answers with shape {tuple(logits.shape)}, and {len(self._classes)} classes of masks of shape "
                f"{tuple(masks.shape)} want {wanted}. Let it answer with as many classes as task.classes has names, by "
                "model.classes or model.num_classes, at the resolution of the masks"
            )
        return logits

    def _checked(self, batch: Batch, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and masks of int64. The range is checked in the first batch of training and of evaluation."""
        if not isinstance(batch, list | tuple) or len(batch) != 2 or not isinstance(batch[1], torch.Tensor):
            raise ConfigError(
                f"This task's batches are pairs of images and masks, and the data give {shapes(batch)} in a "
                f"{type(batch).__name__}. Return (image, mask) from __getitem__, the mask (h, w) of whole numbers"
            )
        images, masks = batch
        if masks.dim() == 4 and masks.shape[1] == 1:
            masks = masks.squeeze(1)
        if masks.dim() != 3 or masks.dtype.is_floating_point or masks.dtype.is_complex:
            raise ConfigError(
                f"The masks of a batch are {shapes(masks)}, and this task wants whole numbers of shape (b, h, w), a class "
                "for each pixel. Of one-hot masks return the argmax, of pictures as floats their bytes"
            )
        masks = masks.long()
        if training not in self._looked_at:
            self._looked_at.add(training)
            self._check_range(masks)
        return images, masks

    def _check_range(self, masks: torch.Tensor) -> None:
        strange = masks[(masks != self._ignore) & ((masks < 0) | (masks >= len(self._classes)))]
        if strange.numel():
            raise ConfigError(
                f"A mask has the class {int(strange[0])}, and task.classes names {len(self._classes)}, 0 to "
                f"{len(self._classes) - 1}; nothing is known where it is {self._ignore}. Name all classes, or type "
                "task.ignore_index="
            )
