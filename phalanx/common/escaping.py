"""Escape text: ${…} that OmegaConf would interpolate, and control characters that a terminal would execute."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OPEN = "${oc.env:"  # prefix of an interpolation that `deferred_env` leaves in the text


def escape(text: str) -> str:
    """`text` with each ${ escaped for OmegaConf, and the backslashes right before it doubled."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def printable(text: str) -> str:
    """`text` with non-printable characters (control, bidirectional) as escapes; line breaks and tabs stay."""
    lines = text.split("\n")
    return text if all(map(str.isprintable, lines)) else "\n".join(_spelt(line, keep="\t") for line in lines)


def on_one_line(text: str) -> str:
    """As `printable`, for a name or a one-line message: line breaks and tabs are escaped, too."""
    return text if text.isprintable() else _spelt(text, keep="")


def _spelt(text: str, keep: str) -> str:
    # Python calls spaces of other widths (category Zs) non-printable; they are harmless.
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def escape_nested(node: Any) -> Any:
    """Nested dicts and lists with every string escaped. A tuple becomes a list, as OmegaConf makes one of it."""
    if isinstance(node, dict):
        return {name: escape_nested(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [escape_nested(value) for value in node]
    return escape(node) if isinstance(node, str) else node


@contextmanager
def without_resolvers() -> Iterator[None]:
    """Remove all OmegaConf resolvers: inside, `${oc.env:…}` and any other raise UnsupportedInterpolationType.

    For configs from others. Interpolations of other keys still work.
    """
    from omegaconf.basecontainer import BaseContainer  # here, as the launcher reads this file

    known = dict(BaseContainer._resolvers)
    BaseContainer._resolvers.clear()
    try:
        yield
    finally:
        BaseContainer._resolvers.update(known)


@contextmanager
def deferred_env(of_a_job: Callable[[str], bool]) -> Iterator[None]:
    """Leave `${oc.env:NAME}` unresolved inside, if `of_a_job(NAME)` or if the variable is not set here.

    For a config that is composed on the login node and composed again inside the job.
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
