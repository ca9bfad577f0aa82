"""Metrics of a user's own, and the tasks that have them: right ones, and what people get wrong."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from phalanx import Metric, Ratio, Update
from phalanx.train.loading.batch import Batch
from phalanx.train.tasks.classification import Classification
from tests.runs.random_user_code import Census

_FEW = 32  # samples: more than a sample batch has


class MacroF1(Metric):
    """F1 of each class, 0 where it has neither samples nor predictions, and their mean, from counts."""

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(3, classes, dtype=torch.int64)  # hits, predictions, labels

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        predicted = logits.argmax(1)
        for row, found in enumerate((labels[predicted == labels], predicted, labels)):
            self.counts[row] += torch.bincount(found, minlength=self.counts.shape[1]).to(self.counts.device)

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.counts += other.counts

    def compute(self) -> Mapping[str, float]:
        hits, predicted, labels = self.counts.double().numpy()
        scores = 2 * hits / np.maximum(predicted + labels, 1)
        return {"macro": float(scores.mean()), **{str(i): score for i, score in enumerate(scores.tolist())}}


class AUC(Metric):
    """Of each class against the others the area under the curve of receiver operating characteristic; keeps all scores."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []
        self.labels: list[torch.Tensor] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.logits.append(logits)
        self.labels.append(labels)

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.logits += other.logits
            self.labels += other.labels

    def compute(self) -> Mapping[int, float]:  # type: ignore[override]  # numbers of classes are names, too
        scores, labels = torch.cat(self.logits).double().numpy(), torch.cat(self.labels).numpy()
        return {kind: area(labels == kind, scores[:, kind]) for kind in range(scores.shape[1])}


def area(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """By trapezoids between the points of the curve where it turns, as scikit-learn's; NaN where one side is missing."""
    if positive.all() or not positive.any():
        return math.nan
    order = np.argsort(scores, kind="stable")[::-1]
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(order) - 1]
    hits = np.cumsum(positive[order].astype(np.float64))[last]
    misses = 1 + last - hits
    turns = np.r_[True, np.logical_or(np.diff(misses, 2), np.diff(hits, 2)), True] if len(hits) > 2 else slice(None)
    hits, misses = np.r_[0, hits[turns]], np.r_[0, misses[turns]]
    return float(np.trapezoid(hits / hits[-1], misses / misses[-1]))


class Scored(Classification):
    """Classification whose metrics are updated with logits and labels, as those of any task derived from it."""

    def metrics(self) -> Mapping[str, Metric]:
        return {"f1": MacroF1(self._classes), "auc": AUC()}


class Drawing(Metric):
    """The sum of numbers drawn for each batch, and one for the whole."""

    def __init__(self) -> None:
        torch.manual_seed(int(torch.rand(()) * 1000))
        self.drawn: list[float] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.drawn.append(float(torch.rand(())) + np.random.rand())

    def merge(self, others: Sequence[Self]) -> None:
        self.drawn += [number for other in others for number in other.drawn]

    def compute(self) -> float:
        return sum(self.drawn) + float(torch.rand(()))


class Careless(Classification):
    """Draws wherever it can, and counts its evaluations."""

    evaluations = 0

    def metrics(self) -> Mapping[str, Metric]:
        self.evaluations += 1
        return {"drawn": Drawing()}


class Numbers(Metric):
    """Whether the samples, each a number, came one after the other, and how many."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def update(self, numbers: torch.Tensor) -> None:
        self.found += numbers.tolist()

    def merge(self, others: Sequence[Self]) -> None:
        for other in others:
            self.found += other.found

    def compute(self) -> Mapping[str, float]:
        first, count = self.found[0], len(self.found)
        return {"in_order": float(self.found == list(range(first, first + count))), "count": count}


class Ordered(Census):
    def metrics(self) -> Mapping[str, Metric]:
        return {"numbers": Numbers()}

    def ratios(self, model: nn.Module, batch: Batch) -> Any:
        return {**super().ratios(model, batch), "numbers": Update(batch[1])}


class Counted(Metric):
    """The number of samples; `fails` in one of its methods, once there are more than a sample batch has."""

    def __init__(self, fails: str | None = None) -> None:
        self.samples = 0
        self.fails = fails

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.samples += len(labels)
        if self.fails == "update" and self.samples > _FEW:
            raise ValueError("no update any more")

    def merge(self, others: Sequence[Self]) -> None:
        self.samples += sum(other.samples for other in others)
        if self.fails == "merge" and self.samples > _FEW:
            raise ValueError("no merge any more")

    def compute(self) -> Any:
        if self.fails == "compute" and self.samples > _FEW:
            raise ValueError("no compute any more")
        return np.float64(self.samples) if self.fails is None else torch.tensor([self.samples])


class Failing(Classification):
    """Its metric fails in the method `at`."""

    def __init__(self, at: str, classes: int = 10) -> None:
        super().__init__(classes, 0.0)
        self._at = at

    def metrics(self) -> Mapping[str, Metric]:
        return {"samples": Counted(self._at)}


class Forgetful(Counted):
    def merge(self, others: Sequence[Self]) -> None:
        pass


class Holding(Counted):
    def __init__(self) -> None:
        super().__init__()
        self.score = lambda samples: samples


class Answering(Counted):
    """Computes `answer`, whatever it counted."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def compute(self) -> Any:
        return self.answer


_ONE = Counted()

# What metrics() answers, and what the refusal of it says.
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, r"metrics\(\) answered with nothing, and not with its metrics by name"),
    "a bare metric": (Counted, r"metrics\(\) answered with a Counted, "),
    "a class": (lambda: {"n": Counted}, r"has a n that is a ABCMeta, and no Metric. Make one: Counted\(…\)"),
    "a function": (lambda: {"n": len}, "no Metric. Derive it from phalanx.Metric"),
    "one twice": (lambda: dict.fromkeys("ab", Counted()), "one Metric under two names"),
    "the same again": (lambda: {"n": _ONE}, r"the same n each time, .* return {'n': Counted\(…\)}"),
    "a name of a line": (lambda: {"lr": Counted()}, "a metric called lr, and a line of metrics says something else"),
    "a name that is no text": (lambda: {3: Counted()}, "a metric called 3"),
    "the loss": (lambda: {"loss": Counted()}, "two metrics called loss"),
    "a ratio's name": (lambda: {"accuracy": Counted()}, "two metrics called accuracy"),
    "a ratio's name by a class": (lambda: {"right": Answering({"cat": 1.0})}, "two metrics called right/cat"),
    "names that meet": (lambda: {"a": Answering({"b": 1.0}), "a/b": Counted()}, "two metrics called a/b"),
    "a number a class": (lambda: {"n": Answering(torch.ones(3))}, r"n was computed as a tensor of shape \(3,\)"),
    "a number a sample of a class": (lambda: {"n": Answering({"cat": [1.0]})}, "n/cat was computed as a list"),
    "no value": (lambda: {"n": Answering(None)}, "n was computed as nothing, and should be one number"),
    "a class with an escape": (lambda: {"n": Answering({"\x1b[2J": 1.0})}, "a metric called 'n/"),
    "a merge that forgets": (lambda: {"n": Forgetful()}, "n is 8 for a sample batch, and 0 where it was merged"),
    "a state that only pickle sends": (
        lambda: {"n": Holding()},
        r"\['n'\]\['score'\] is a builtins.function, which only",
    ),
}


class Wrong(Classification):
    """Its metrics are the member `kind` of WRONG, or ratios() does not fit to what they are."""

    def __init__(self, kind: str, classes: int = 10) -> None:
        super().__init__(classes, 0.0)
        self._kind = kind

    def metrics(self) -> Any:
        return WRONG[self._kind][0]() if self._kind in WRONG else {"n": Counted()}

    def ratios(self, model: nn.Module, batch: Batch) -> Any:
        found = {**super().ratios(model, batch), "right/cat": Ratio(torch.ones(()), 1)}
        if self._kind == "no update":
            return {name: value for name, value in found.items() if not isinstance(value, Update)}
        if self._kind == "an unknown update":
            return {**found, "m": Update()}
        return {**found, "m": Counted()} if self._kind == "the metric itself" else found
