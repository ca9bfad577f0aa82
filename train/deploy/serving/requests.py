"""Requests to raw inputs, and their answers: JSON, or the content of one picture, sound or text."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phalanx.exit.codes import ConfigError

from ...sinks.shown import Shown
from ..prediction.answers import Prediction, as_json
from ..prediction.predictor import Predictor
from ..prediction.raw_inputs import FILES

MOST_INPUTS = 256  # of a request
_MOST_BYTES = 2**30  # of the arrays of a request: a short body may hold long sounds and large pictures
_ONE, _MANY = "input", "inputs"


@dataclass(frozen=True)
class Asked:
    """The samples of a request; `alone`: it asked for one, and its answer is no list."""

    samples: Sequence[Any]
    alone: bool


def asked(body: bytes, content_type: str, predictor: Predictor) -> Asked:
    """Raises ConfigError that says what is wrong with the request."""
    if content_type == "application/json":
        return _of_json(body, predictor)
    if len(predictor.kinds) != 1:
        raise ConfigError(f"this model takes {_inputs(predictor)}: send application/json")
    (kind,) = predictor.kinds.values()
    if kind in FILES:
        return Asked([predictor.sample(body)], True)
    if kind == "text" and content_type == "text/plain":
        return Asked([predictor.sample(_text(body))], True)
    raise ConfigError(f"the body is {content_type}, and this model takes {_inputs(predictor)}. Send application/json")


def answer(predictions: Sequence[Prediction], *, alone: bool) -> bytes:
    """The body of the answer. A file of a prediction is in base64."""
    found = [{name: _plain(value) for name, value in each.items()} for each in predictions]
    return as_json(found[0] if alone else {"predictions": found}).encode()


def _of_json(body: bytes, predictor: Predictor) -> Asked:
    try:
        told = json.loads(_text(body))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the body is no JSON: {error}") from None
    if not isinstance(told, dict) or len(told.keys() & {_ONE, _MANY}) != 1 or len(told) != 1:
        raise ConfigError(f'the body is to be {{"{_ONE}": …}} or {{"{_MANY}": […]}}, and nothing else')
    if _ONE in told:
        return Asked([_sample(told[_ONE], predictor)], True)
    inputs = told[_MANY]
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MOST_INPUTS:
        raise ConfigError(f'"{_MANY}" is to be a list of 1 to {MOST_INPUTS}')
    samples, longest = [], 0
    for number, value in enumerate(inputs):
        try:
            samples.append(_sample(value, predictor))
        except ConfigError as error:
            raise ConfigError(f"{_MANY}[{number}]: {error}") from None
        longest = max(longest, _octets(samples[-1]))
        if longest * len(samples) > _MOST_BYTES:  # the others are padded to the longest
            raise ConfigError(f"{_MANY} take more than {_MOST_BYTES >> 20} MiB when decoded. Send fewer in a request")
    return Asked(samples, False)


def _octets(sample: Any) -> int:
    return sum(array.nbytes for array in sample.values()) if isinstance(sample, dict) else 0


def _sample(value: Any, predictor: Predictor) -> Any:
    kinds = predictor.kinds
    if len(kinds) == 1:
        return predictor.sample(_decoded(value, next(iter(kinds.values()))))
    if isinstance(value, dict):
        value = {name: _decoded(part, kinds.get(name)) for name, part in value.items()}
    return predictor.sample(value)


def _decoded(value: Any, kind: str | None) -> Any:
    """A picture or a sound is the content of its file, in base64."""
    if kind not in FILES:
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ConfigError(f"an {kind} is the content of its file in base64") from None


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the body is not UTF-8, at byte {error.start}") from None


def _plain(value: Any) -> Any:
    return base64.b64encode(value.content).decode() if isinstance(value, Shown) else value


def _inputs(predictor: Predictor) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in predictor.kinds.items())
