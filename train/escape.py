"""Text that is to be taken as it stands, also where it holds a ${ that OmegaConf would look up."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def escaped(text: str) -> str:
    """`text` so that OmegaConf takes no ${ in it for an interpolation. Backslashes count only right before one."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def all_escaped(node: Any) -> Any:
    """Nested dicts and lists with every text escaped."""
    if isinstance(node, dict):
        return {name: all_escaped(value) for name, value in node.items()}
    if isinstance(node, list):
        return [all_escaped(value) for value in node]
    return escaped(node) if isinstance(node, str) else node


@contextmanager
def nothing_looked_up() -> Iterator[None]:
    """Within, OmegaConf knows no resolver: a `${oc.env:…}`, or any other, raises UnsupportedInterpolationType.

    For what others wrote. One key's value may still be that of another.
    """
    from omegaconf.basecontainer import BaseContainer  # here, as the launcher reads this file

    known = dict(BaseContainer._resolvers)
    BaseContainer._resolvers.clear()
    try:
        yield
    finally:
        BaseContainer._resolvers.update(known)
