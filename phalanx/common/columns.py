"""Break lines between words so that they fit the terminal's width."""

import os
import textwrap
from typing import TextIO

_FEWEST = 20


def terminal_width(stream: TextIO) -> int | None:
    """The width, in characters, of the terminal that `stream` writes to; None if it is not a terminal or has no width."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def wrap(text: str, columns: int | None, indent: str = "    ") -> str:
    """`text` with each line wrapped at `columns` characters, the continuation indented; unchanged for None.

    A word longer than a line is not split, so that a path or a command can be copied.
    """
    if columns is None:
        return text
    return "\n".join(
        textwrap.fill(
            line, max(_FEWEST, columns), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        if len(line) > columns
        else line
        for line in text.split("\n")
    )
