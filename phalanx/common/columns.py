"""Break lines between words so that they fit the terminal's width."""

import os
import textwrap
from typing import TextIO

_FEWEST = 20


def columns_of(stream: TextIO) -> int | None:
    """Of the terminal that `stream` writes to; None where it is none, or does not tell."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def broken(text: str, columns: int | None, indent: str = "    ") -> str:
    """`text` with each line that is longer broken between words, what follows indented; as it is for None.

    A word that is longer than a line stays whole, as a path or a command is copied.
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
