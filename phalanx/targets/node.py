"""A `_target_` node of the config, read as Hydra reads one: `_partial_`, `_args_`, `_convert_`, `_recursive_`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.overrides import shown
from ..exit.codes import ConfigError

CONVERT = ("none", "partial", "object", "all")
_KEYS = frozenset({"_target_", "_partial_", "_args_", "_convert_", "_recursive_"})
# What Hydra does where a key is left out, so that writing it down changes nothing.
USUAL: Mapping[str, Any] = {"_partial_": False, "_args_": [], "_recursive_": True}


@dataclass(frozen=True)
class TargetNode:
    """`keywords` are the arguments by name and `positional` those by position, both as the config holds them.

    `partial`: it stands for the callable with these arguments, not for what a call returns. `recursive`: nodes among the
    arguments are built first. `convert` is None where the node does not say.
    """

    target: Any
    positional: Sequence[Any]
    keywords: Mapping[str, Any]
    partial: bool
    recursive: bool
    convert: str | None


def is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def read_node(node: Mapping[str, Any], where: str) -> TargetNode:
    """Raises ConfigError for a value of Hydra's keys that is none."""
    for name in ("_partial_", "_recursive_"):
        if type(node.get(name, False)) is not bool:
            raise ConfigError(f"{where}.{name}={shown(node[name])} must be true or false. Type {where}.{name}=true")
    positional, convert = node.get("_args_", []), node.get("_convert_")
    if not isinstance(positional, list | tuple):
        raise ConfigError(
            f"{where}._args_={shown(positional)} must be a list of the arguments that are passed by position. Type "
            f"{where}._args_=[{positional}]"
        )
    if convert is not None and convert not in CONVERT:
        raise ConfigError(
            f"{where}._convert_={shown(convert)} must be one of {', '.join(CONVERT)}. Type {where}._convert_=all"
        )
    keywords = {name: value for name, value in node.items() if name not in _KEYS}
    partial, recursive = node.get("_partial_", False), node.get("_recursive_", True)
    return TargetNode(node.get("_target_"), positional, keywords, partial, recursive, convert)


def children(value: Any) -> Collection[tuple[Any, Any]]:
    """The items of a dict, list or tuple with their keys; nothing of any other value."""
    if isinstance(value, Mapping):
        return value.items()
    return list(enumerate(value)) if isinstance(value, list | tuple) else ()
