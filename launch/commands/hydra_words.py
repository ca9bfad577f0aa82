"""Command-line options that verbs which train share: Hydra's --config-dir and --config-name, overrides, and --grace."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(command: Command) -> Command:
    """Gives a verb the options --config-dir and --config-name."""
    named = click.option(
        "-cn", "--config-name", metavar="NAME", help="The primary config, in place of conf/config.yaml."
    )
    folder = click.option("-cd", "--config-dir", metavar="DIR", help="A folder of your own configs, added to conf/.")
    return folder(named(command))


def grace_option(meaning: str) -> Callable[[Command], Command]:
    """Gives a verb the option --grace."""
    kind = click.IntRange(min=1)
    return click.option("--grace", type=kind, default=120, metavar="SECONDS", show_default=True, help=meaning)


def hydra_words(config_dir: str | None, config_name: str | None, overrides: Sequence[str]) -> list[str]:
    """The arguments of train/main.py."""
    options = {"--config-dir": config_dir, "--config-name": config_name}
    return [*(f"{name}={value}" for name, value in options.items() if value is not None), *overrides]
