"""Canonical form of config values, of which a digest is taken: equal for values that mean the same."""

import json
import re
from collections.abc import Mapping
from typing import Any

from ..config.moved_names import current_name
from ..targets.node import USUAL
from .alias import APART, defaults, documented_name

# Packages that re-export their modules: a class is named by the package, wherever it is defined inside.
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
_METHOD = re.compile(r"((?:\w+\.)+?[A-Z]\w*)((?:\.\w+)+)")  # of torch's and our classes, whose modules have no capitals


def canonical(value: Any) -> Any:
    """Plain data with each number, and each `_target_`, in canonical form.

    Numbers are equal where Python calls them so (1, 1.0, 1e0), but true is not 1, and the text "1" is no number.
    """
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if not isinstance(target, str):
            return {canonical(name): canonical(item) for name, item in value.items()}
        others = {
            canonical(name): canonical(item)
            for name, item in value.items()
            if name != "_target_" and not (name in USUAL and item == USUAL[name])
        }
        return {"_target_": public(target), **_less_defaults(others, target)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def public(target: str) -> str:
    """The name of a class or builder that stays when it moves within its package.

    Ours are phalanx.<Class>; classes of torch, torchvision and other packages are named by the package that documents
    them, for other packages as far as their source tells. A method is named by its class.
    """
    if target.partition(".")[0] in APART and (found := _METHOD.fullmatch(target)):
        return f"{public(found[1])}{found[2]}"
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
    """Drop the arguments of a class of ours that equal their defaults.

    Such a default is what a config meant before conf/ had the key, so older runs keep their names. Defaults of other
    packages change with their versions, and are not dropped.
    """
    ours = defaults(target) if _OURS.fullmatch(target) else {}
    return {
        name: value
        for name, value in arguments.items()
        if name not in ours or text(value) != text(canonical(ours[name]))
    }


def text(value: Any) -> str:
    """JSON of a canonical value, with sorted keys."""
    return json.dumps(_keyed(value), sort_keys=True, default=lambda other: [type(other).__name__, str(other)])


def _keyed(value: Any) -> Any:
    """Replace keys that are no strings by unique strings."""
    if isinstance(value, Mapping):
        pairs = (
            (name if isinstance(name, str) else f"{json.dumps(name, default=str)}\0", value[name]) for name in value
        )
        return {name: _keyed(item) for name, item in pairs}
    return [_keyed(item) for item in value] if isinstance(value, list) else value
