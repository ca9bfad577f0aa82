"""What is typed for Hydra: overrides, and the two of its own options that are options of ours, too."""

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


def words(config_dir: str | None, config_name: str | None, overrides: Sequence[str]) -> list[str]:
    """The words that train/main.py is given."""
    options = {"--config-dir": config_dir, "--config-name": config_name}
    return [*(f"{name}={value}" for name, value in options.items() if value is not None), *overrides]
