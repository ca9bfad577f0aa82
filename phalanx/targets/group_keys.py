"""Keys that a config has of an option of conf/, such as conf/model/convnet.yaml, beside those of the user."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_CONF = Path(__file__).resolve().parents[1] / "conf"


def origin(where: str, name: str) -> str:
    """What to add about an argument that the class at `where` does not take: that its group may have brought it; or ""."""
    group, *inside = where.split(".")
    options = sorted(_CONF.joinpath(group).glob("*.yaml"))
    if not any(name in _at(yaml.safe_load(option.read_text(encoding="utf-8")), inside) for option in options):
        return ""
    return (
        f". Where it is none of yours, the group {group} brought it: an experiment with its own {group} has `- override "
        f"/{group}: null` in its defaults, a command line '{where}={{_target_: …}}'"
    )


def _at(node: Any, path: list[str]) -> Mapping[str, Any]:
    """The keys at `path` in a config file; none where there is no such place."""
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}
