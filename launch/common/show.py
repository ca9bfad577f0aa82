"""Prints text from folders that others wrote, with terminal escape sequences made visible."""

import click

from phalanx.common.escaping import printable


def show(text: str) -> None:
    """Print `text` to standard output with control characters escaped."""
    click.echo(printable(text).encode("utf-8", "replace").decode())
