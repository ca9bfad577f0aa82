"""One spelling for all that mean the same: what a digest is taken of."""

import json
import re
from collections.abc import Mapping
from typing import Any

from ..config.moved_names import current_name
from .alias import APART, defaults, documented_name

# A module that its package hands on: the class is known by the package's name, wherever it is defined in there.
_HANDED_ON = tuple(
    re.compile(rf"({package})\.\w+\.(\w+)")
    for package in (
        r"torch\.nn(?=\.modules\.)(?:\.modules)?",
        r"torch\.optim(?!\.lr_scheduler\.)",
        r"torch\.utils\.data(?!\.datapipes\.)",
        r"torchvision\.models(?:\.(?:detection|segmentation|video|quantization|optical_flow))?",
        r"torchvision\.datasets",
        r"torchvision\.transforms(?:\.v2)?",
    )
)
_SUB_PACKAGES = re.compile(
    r"torchvision\.(?:models\.(?:detection|segmentation|video|quantization|optical_flow)|datasets\.samplers|transforms\.v2)\.\w+"
)
_OURS = re.compile(r"phalanx(?:\.\w+)*\.(\w+)")


def canonical(value: Any) -> Any:
    """Plain data with each number, and each `_target_`, in its one spelling.

    Numbers are equal where Python calls them so (1, 1.0, 1e0), but true is not 1, and the text "1" is no number.
    """
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if not isinstance(target, str):
            return {canonical(name): canonical(item) for name, item in value.items()}
        others = {canonical(name): canonical(item) for name, item in value.items() if name != "_target_"}
        return {"_target_": public(target), **_less_defaults(others, target)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def public(target: str) -> str:
    """The name that a class or builder keeps when it moves within its package, whichever it was typed by.

    Ours are phalanx.<Class>; those of torch and torchvision carry the name of the package that documents them. So do others
    as far as their source tells.
    """
    target = current_name(target) or target
    if target.partition(".")[0] not in APART and all(part.isidentifier() for part in target.split(".")):
        target = documented_name(target)
    if found := _OURS.fullmatch(target):
        return f"phalanx.{found[1]}"
    if _SUB_PACKAGES.fullmatch(target):
        return target
    for module in _HANDED_ON:
        if found := module.fullmatch(target):
            return f"{found[1].removesuffix('.modules')}.{found[2]}"
    return target


def _less_defaults(arguments: dict[Any, Any], target: str) -> dict[Any, Any]:
    """Without the arguments of a class of ours that hold what they are by default.

    Such a default says what a config meant before conf/ had the key, and so keeps the names of runs of then. Other
    people's defaults change with their versions, and names would with them.
    """
    ours = defaults(target) if _OURS.fullmatch(target) else {}
    return {
        name: value
        for name, value in arguments.items()
        if name not in ours or text(value) != text(canonical(ours[name]))
    }


def text(value: Any) -> str:
    """The JSON of what `canonical` gives, the same for equal data whatever the order of its keys."""
    return json.dumps(_keyed(value), sort_keys=True, default=lambda other: [type(other).__name__, str(other)])


def _keyed(value: Any) -> Any:
    """Keys that are no text become text that no other key has."""
    if isinstance(value, Mapping):
        pairs = (
            (name if isinstance(name, str) else f"{json.dumps(name, default=str)}\0", value[name]) for name in value
        )
        return {name: _keyed(item) for name, item in pairs}
    return [_keyed(item) for item in value] if isinstance(value, list) else value
