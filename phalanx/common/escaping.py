"""Escape text: from OmegaConf's ${…} interpolation, and from control characters that a terminal obeys."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OPEN = "${oc.env:"  # what `looked_up_there` leaves begins so


def escaped(text: str) -> str:
    """`text` so that OmegaConf takes no ${ in it for an interpolation. Backslashes count only right before one."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def printable(text: str) -> str:
    """`text` as a terminal may have it: what would move its cursor, colour it, turn it round or call it is spelt out."""
    lines = text.split("\n")
    return text if all(map(str.isprintable, lines)) else "\n".join(_spelt(line, keep="\t") for line in lines)


def on_one_line(text: str) -> str:
    """The same, of a name or of a message that has one line."""
    return text if text.isprintable() else _spelt(text, keep="")


def _spelt(text: str, keep: str) -> str:
    # Of what Python calls not printable, spaces of any width do no harm.
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


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


@contextmanager
def looked_up_there(of_a_job: Callable[[str], bool]) -> Iterator[None]:
    """Within, `${oc.env:NAME}` stays as it is where a variable is that of a job to come, or is not set here.

    For a config that is composed in one place and is to be composed again, and then to hold, in another.
    """
    from omegaconf import OmegaConf  # here, as the launcher reads this file
    from omegaconf.basecontainer import BaseContainer

    def environment(name: str, *default: object) -> object:
        here = None if of_a_job(name) else os.environ.get(name, *default)
        return f"{OPEN}{name}}}" if here is None else here

    known = dict(BaseContainer._resolvers)
    OmegaConf.register_new_resolver("oc.env", environment, replace=True)
    try:
        yield
    finally:
        BaseContainer._resolvers.update(known)
