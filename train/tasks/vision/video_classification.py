"""One class a clip."""

from collections.abc import Mapping

import torch
from torch import nn

from ...loading.batch import Batch
from ...sinks.shown import Shown
from ..classification import Classification
from ..drawing.labelled_images import labelled_images

_SHOWN = 8  # clips


class VideoClassification(Classification):
    """`Classification` of clips (b, channels, frames, h, w), which shows the first ones, their frames side by side."""

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        clips, labels = batch
        if not isinstance(clips, torch.Tensor) or clips.dim() != 5:
            return {}
        clips, labels = (part[: min(_SHOWN, self.now.shown)] for part in (clips, labels))
        found = [each["prediction"] for each in self.predictions(model, (clips, labels))]
        strips = clips.movedim(2, 3).flatten(3)  # (b, channels, h, frames * w)
        return {"clips": labelled_images(strips, labels, found)}
