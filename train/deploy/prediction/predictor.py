"""What predicts: an export or the model of a run by its forms, or a task that predicts in its own way."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from phalanx.exit.codes import ConfigError

from ...tasks.task import Task
from ..runtimes.runtime import Runtime
from .answers import Answers, Prediction
from .raw_inputs import RawInputs, Sample, picture


class Predictor(ABC):
    """Predicts samples, each made of one raw input."""

    kinds: Mapping[str, str]  # of each input its kind, as preprocessing.json calls it

    @abstractmethod
    def sample(self, raw: Any) -> Any:
        """Raises ConfigError that says what is wrong with this input."""

    @abstractmethod
    def key(self, sample: Any) -> tuple[Any, ...]:
        """Equal for samples that are predicted in one batch."""

    @abstractmethod
    def predict(self, samples: Sequence[Any]) -> list[Prediction]:
        """Of each sample `prediction`, and `score` where there is one. Raises what the model or its runtime raises."""


class FormPredictor(Predictor):
    """Calls a runtime between what makes its inputs and what reads its answer."""

    def __init__(self, inputs: RawInputs, runtime: Runtime, answers: Answers) -> None:
        self.kinds = inputs.kinds
        self._inputs, self._runtime, self._answers = inputs, runtime, answers

    def sample(self, raw: Any) -> Sample:
        return self._inputs.sample(raw)

    def key(self, sample: Sample) -> tuple[Any, ...]:
        return self._inputs.key(sample)

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        return self._answers(self._runtime(self._inputs.batch(samples)), len(samples))


class TaskPredictor(Predictor):
    """Calls a task's `predict`."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        assert task.predicts is not None
        if task.predicts not in ("text", "image"):
            raise ConfigError(f"{type(task).__name__}.predicts is {task.predicts!r}. Write 'text' or 'image'")
        self.kinds = {"input": task.predicts}
        self._task, self._model = task, model

    def sample(self, raw: Any) -> Any:
        if self._task.predicts == "image":
            return picture(raw, 3).float() / 255
        if not isinstance(raw, str):
            raise ConfigError(f"a text is wanted, and this is a {type(raw).__name__}")
        return raw

    def key(self, sample: Any) -> tuple[Any, ...]:
        return ()

    @torch.no_grad()
    def predict(self, samples: Sequence[Any]) -> list[Prediction]:
        return [dict(each) for each in self._task.predict(self._model, samples)]


def predicted(predictor: Predictor, samples: Sequence[Any]) -> list[Prediction]:
    """Of each sample its prediction, or {"error"}: what one of them raises is that one's alone."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(predictor.key(sample), []).append(place)
    found: list[Prediction] = [{} for _ in samples]
    for places in groups.values():
        for place, prediction in zip(places, _of_group(predictor, [samples[i] for i in places]), strict=True):
            found[place] = prediction
    return found


def _of_group(predictor: Predictor, samples: Sequence[Any]) -> list[Prediction]:
    try:
        return predictor.predict(samples)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the user's model, or a runtime, whatever it raises
        if len(samples) > 1:
            return [prediction for sample in samples for prediction in _of_group(predictor, [sample])]
        return [{"error": _line(error)}]


def _line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text if isinstance(error, ConfigError) else f"the model raised {type(error).__name__}: {text[:300]}"
