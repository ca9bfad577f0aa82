"""A task that shows something of every kind."""

from collections.abc import Mapping

import torch
from torch import nn

from phalanx import Audio, Image, Table, Text
from phalanx.train.loading.batch import Batch
from phalanx.train.sinks.shown import Shown
from phalanx.train.tasks.classification import Classification


class Showing(Classification):
    """What it shows draws random numbers, as dropout would."""

    def show(self, model: nn.Module, batch: Batch) -> Mapping[str, Shown]:
        inputs, labels = batch
        answers = model(inputs).argmax(1)
        rows = [[i, int(label), int(answer)] for i, (label, answer) in enumerate(zip(labels, answers, strict=True))]
        assert not model.training
        assert not self.now.training
        return {
            "picture": Image(torch.rand(3, 4, 5), caption="noise"),
            "answers": Table(["index", "label", "answer"], rows),
            "note": Text(f"step {self.now.step} of {self.now.steps}"),
            "sound": Audio(torch.linspace(-2, 2, 800).sin(), 8000),
        }
