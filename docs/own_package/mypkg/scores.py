import torch

from phalanx import Metric
from phalanx.tasks import Classification


class MacroF1(Metric):
    """The F1 of each class, and their mean."""

    def __init__(self, classes):
        self.classes = classes
        self.counts = 0  # of each class its hits, predictions and labels

    def update(self, logits, labels):
        predicted = logits.argmax(1)
        found = (labels[predicted == labels], predicted, labels)
        self.counts = self.counts + torch.stack([torch.bincount(each, minlength=self.classes) for each in found])

    def merge(self, others):
        self.counts = self.counts + sum(other.counts for other in others)

    def compute(self):
        hits, predicted, labels = self.counts.double()
        scores = 2 * hits / (predicted + labels).clamp(min=1)
        return {"macro": scores.mean(), **dict(enumerate(scores))}


class Scored(Classification):
    def metrics(self):
        return {"f1": MacroF1(classes=10)}
