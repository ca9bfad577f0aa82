"""Predict many inputs: a line of JSON each, in their order, and how long it took."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.common.files import write_atomic
from phalanx.exit.codes import ConfigError

from ...sinks.shown import Shown
from .answers import as_json
from .predictor import Predictor, predicted
from .typed_inputs import raw_of


@dataclass
class Timing:
    """Seconds of each batch, from reading its inputs to its predictions."""

    batch: int
    took_s: list[float] = field(default_factory=list)
    inputs: int = 0
    failed: int = 0

    def told(self) -> str:
        """Without the first batch, where others came after it: runtimes make room for their work in it."""
        steady = self.took_s[1:] or self.took_s
        p50, p99 = (float(np.percentile(steady, share)) * 1000 for share in (50, 99))
        rate = (self.inputs - self.batch * (len(self.took_s) > 1)) / sum(steady)
        lost = f", {self.failed} of them without a prediction" if self.failed else ""
        what = "one" if self.batch == 1 else f"a batch of {self.batch}"
        return f"{self.inputs} inputs{lost}: {what} took {p50:.2f} ms (p50), {p99:.2f} ms (p99); {rate:.1f} inputs/s"


def predict_lines(
    predictor: Predictor, typed: Sequence[str], timing: Timing, files: Path | None
) -> Iterator[list[str]]:
    """A line of JSON for each input, a batch at a time. Sounds and masks go into the folder `files`, where it is set."""
    for start in range(0, len(typed), timing.batch):
        words, began = typed[start : start + timing.batch], time.perf_counter()
        found = _predicted(predictor, words)
        timing.took_s.append(time.perf_counter() - began)
        timing.inputs += len(words)
        timing.failed += sum("error" in each for each in found)
        yield [
            as_json({"input": word, **_written(each, number, files)})
            for number, (word, each) in enumerate(zip(words, found, strict=True), start)
        ]


def _predicted(predictor: Predictor, words: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    samples, places = [], []
    for place, word in enumerate(words):
        try:
            samples.append(predictor.sample(raw_of(word, predictor.kinds)))
        except ConfigError as error:
            found.append({"error": str(error)})
        else:
            places.append(place)
            found.append({})
    for place, prediction in zip(places, predicted(predictor, samples), strict=True):
        found[place] = prediction
    return found


def _written(prediction: Mapping[str, Any], number: int, files: Path | None) -> dict[str, Any]:
    """The prediction, a file's path in the place of what is to be seen or heard; without it where no file is asked for."""
    kept: dict[str, Any] = {}
    for name, value in prediction.items():
        if not isinstance(value, Shown):
            kept[name] = value
        elif files is not None:
            path = files / f"{number:06d}.{value.suffix}"
            write_atomic(path, value.content)
            kept[name] = str(path)
    return kept
