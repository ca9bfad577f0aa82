"""What is said of a regular expression for the names of parameters or modules that is none, or that matches none."""

import re
from collections.abc import Sequence

from .suggest import nearest

_LISTED = 12


def no_pattern(pattern: object, where: str, example: str) -> str | None:
    """A message where `pattern`, the value of `where`, is no regular expression; None where it is one.

    `example` is one to type, such as "match: backbone".
    """
    try:
        re.compile(pattern)  # type: ignore[call-overload]
    except (re.error, TypeError) as error:
        shown = "null" if pattern is None else pattern
        why = error if isinstance(pattern, str) else "it is no text"
        return f"{where}={shown} is no regular expression: {why}. Type one, such as {example}"
    return None


def no_match(pattern: str, where: str, names: Sequence[str], kind: str) -> str:
    """The message for a pattern that is found in none of `names`, which are those of a `kind`, such as a parameter."""
    return (
        f"{where}={pattern} matches the name of no {kind}. {nearest(pattern, names)}The names are {listed(names)}. It is "
        "searched for anywhere in a name, as by Python's re.search: a dot stands for any character, ^ for the beginning"
    )


def listed(names: Sequence[str]) -> str:
    """The names, of which the first ones are told."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else "none"
