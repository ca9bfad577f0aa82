"""What a model's answer means, as `postprocessing` of export.json says it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.common.files import finite
from phalanx.exit.codes import ConfigError

from ...data.speech.alphabet import Alphabet
from ...sinks.shown import Image
from ...tasks.speech.ctc_decoding import best_path

Prediction = dict[str, Any]


def as_json(value: object) -> str:
    """JSON on one line that UTF-8 can hold: what it cannot, such as of a file's name in another encoding, is escaped."""
    text = json.dumps(finite(value), ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(finite(value))
    return text


class Answers:
    """Arrays by name to a prediction a sample: `prediction`, and `score` where there is one."""

    def __init__(self, form: Mapping[str, Any], labels: Sequence[str] | None, top: int) -> None:
        """`top`: of classes the so many likeliest stand under `top`, where it is more than one."""
        self._form, self._labels, self._top = form, labels, top
        kinds: Mapping[str, Callable[[Mapping[str, NDArray[Any]], int], list[Prediction]]] = {
            **{"classes": self._classes, "value": self._value, "tensor": self._tensors},
            **{"mask": self._masks, "ctc": self._texts},
        }
        if form["kind"] not in kinds:
            raise ConfigError(f"An answer of the kind {form['kind']!r} is unknown. Export the run anew")
        if top > 1 and form["kind"] != "classes":
            raise ConfigError(f"--top counts classes, and this model answers with {form['kind']}. Leave it out")
        self._read = kinds[form["kind"]]

    def __call__(self, outputs: Mapping[str, NDArray[Any]], count: int) -> list[Prediction]:
        return self._read(outputs, count)

    def _output(self, outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return outputs[self._form["output"]]

    def _classes(self, outputs: Mapping[str, NDArray[Any]], count: int) -> list[Prediction]:
        logits = self._output(outputs).astype(np.float64)
        scores = np.exp(logits - logits.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return [self._class(row) for row in scores[:count]]

    def _class(self, scores: NDArray[np.float64]) -> Prediction:
        if scores.ndim > 1:  # such as a class for each token
            rows = [self._class(row) for row in scores]
            return {name: [row[name] for row in rows] for name in ("prediction", "score")}
        ranked = np.argsort(-scores, kind="stable")[: max(1, self._top)]
        best = [{"prediction": self._label(int(i)), "score": float(scores[i])} for i in ranked]
        return {**best[0], "top": best} if self._top > 1 else best[0]

    def _label(self, number: int) -> str | int:
        return self._labels[number] if self._labels is not None and number < len(self._labels) else number

    def _value(self, outputs: Mapping[str, NDArray[Any]], count: int) -> list[Prediction]:
        values = self._output(outputs)[:count]
        return [{"prediction": row.item() if row.size == 1 else row.tolist()} for row in values]

    def _tensors(self, outputs: Mapping[str, NDArray[Any]], count: int) -> list[Prediction]:
        rows = {name: array for name, array in outputs.items() if array.ndim and len(array) == count}
        return [{"prediction": {name: array[i].tolist() for name, array in rows.items()}} for i in range(count)]

    def _masks(self, outputs: Mapping[str, NDArray[Any]], count: int) -> list[Prediction]:
        """The share of each class, and the mask as a picture: the number of a pixel's class."""
        found, names = self._output(outputs)[:count].argmax(1).astype(np.uint8), self._form["classes"]
        return [
            {
                "prediction": {name: float((mask == i).mean()) for i, name in enumerate(names)},
                "mask": Image(torch.from_numpy(mask)[None]),
            }
            for mask in found
        ]

    def _texts(self, outputs: Mapping[str, NDArray[Any]], count: int) -> list[Prediction]:
        alphabet, frames = Alphabet(self._form["alphabet"]), outputs[self._form["lengths"]]
        logits = self._output(outputs).astype(np.float64)[:count]
        logs = logits - logits.max(-1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
        decoded = [best_path(row[:length]) for row, length in zip(logs, frames.tolist(), strict=False)]
        return [{"prediction": alphabet.decode(tokens), "score": math.exp(log)} for tokens, log in decoded]
