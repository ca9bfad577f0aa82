"""What a verb prints: much of it was written by others, in whose folder it looks, and a terminal obeys what it is sent."""

import click

from phalanx.common.escaping import printable


def show(text: str) -> None:
    """To standard output, with escapes and the like spelt out."""
    click.echo(printable(text).encode("utf-8", "replace").decode())
