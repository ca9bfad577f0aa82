"""The forms in which a data set says what makes its inputs, and a task what an answer means: docs/deployment.md."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from ..common.suggest import nearest
from ..exit.codes import ConfigError

TENSOR = {"kind": "tensor"}
_INPUTS: Mapping[str, tuple[Collection[str], Collection[str]]] = {  # of each kind the keys that it needs, and may have
    "image": (("channels", "size", "mean", "std"), ("resize",)),
    "text": (
        ("tokenizer",),
        ("file", "vocabulary", "lower", "unknown", "padding", "begin", "end", "length"),
    ),
    "mask": (("of",), ()),
    "length": (("of",), ()),
    "audio": (("sample_rate",), ("samples", "features", "mean", "std")),
    "index": ((), ("vocabulary", "size")),
    "number": (("mean", "std"), ()),
    "tensor": ((), ()),
}
_ANSWERS: Mapping[str, tuple[Collection[str], Collection[str]]] = {
    "classes": ((), ("output",)),
    "value": ((), ("output",)),
    "mask": (("classes",), ("output",)),
    "ctc": (("alphabet",), ("output", "lengths")),
    "tensor": ((), ("output",)),
}


def checked_preprocessing(found: Any, inputs: Collection[str], who: str) -> dict[str, Any]:
    """The form of each input by name; `found` is of one, or by name. Raises ConfigError, which says `who` said it."""
    if not isinstance(found, Mapping):
        raise ConfigError(f"preprocessing() of {who} gave a {type(found).__name__}. {_FOR_EXAMPLE}")
    forms = dict(found) if not isinstance(found.get("kind"), str) else {next(iter(inputs)): found}
    if not forms.keys() & set(inputs) and len(forms) == len(inputs):
        forms = _renamed(forms, dict(zip(forms, inputs, strict=True)))  # a model of other names, in the same order
    if unknown := [name for name in forms if name not in inputs]:
        raise ConfigError(
            f"preprocessing() of {who} tells of {unknown[0]}, and the model's inputs are {', '.join(inputs)}. Name them so"
        )
    for name, form in forms.items():
        _check(form, _INPUTS, f"preprocessing() of {who} for {name}")
    return {name: plain(forms.get(name, TENSOR), f"preprocessing() of {who}") for name in inputs}


def checked_postprocessing(found: Any, outputs: Collection[str], who: str) -> dict[str, Any]:
    """What an answer means. Raises ConfigError, which says `who` said it."""
    _check(found, _ANSWERS, f"postprocessing() of {who}")
    form = {**found, "output": found.get("output", next(iter(outputs)))}
    if form["kind"] == "ctc":
        form["lengths"] = found.get("lengths", [*outputs][-1])
    for name in (form["output"], form.get("lengths", form["output"])):
        if name not in outputs:
            raise ConfigError(
                f"postprocessing() of {who} reads {name}, and the model's outputs are {', '.join(outputs)}"
            )
    plain_form: dict[str, Any] = plain(form, f"postprocessing() of {who}")
    return plain_form


def plain(value: Any, who: str) -> Any:
    """The value as JSON gives it back. Raises ConfigError."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{who} holds what JSON does not: {error}. Give numbers, text, lists and dicts") from None


def _renamed(forms: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        names[name]: {**form, "of": names.get(form["of"], form["of"])} if "of" in form else form
        for name, form in forms.items()
    }


def _check(form: Any, kinds: Mapping[str, tuple[Collection[str], Collection[str]]], who: str) -> None:
    kind = form.get("kind") if isinstance(form, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{who} has the kind {kind!r}. Kinds are {', '.join(kinds)}. {_FOR_EXAMPLE}")
    needs, may = kinds[kind]
    if lacking := [key for key in needs if key not in form]:
        raise ConfigError(f"{who} is {kind} and lacks {lacking[0]}. Give it")
    if unknown := [key for key in form if key not in (*needs, *may, "kind")]:
        raise ConfigError(
            f"{who} has {unknown[0]}. {nearest(str(unknown[0]), [*needs, *may])}{kind} has {needs} and {may}"
        )


_FOR_EXAMPLE = (
    'Return a dict such as {"kind": "image", "channels": 3, "size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}'
)
