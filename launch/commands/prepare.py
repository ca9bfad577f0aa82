"""`phalanx prepare`: fetches and writes the data of a config once, before a run asks for them."""

import os
import sys
from collections.abc import Sequence

import click

from phalanx.system.module_path import PACKAGE

from .hydra_words import config_options, hydra_words


@click.command()
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@config_options
def prepare(overrides: Sequence[str], config_dir: str | None, config_name: str | None) -> None:
    """Fetch and write the data of a config into data.cache, by default ~/.cache/phalanx, and check what is there.

    KEY=VALUE are the words of the run, such as experiment=ratings. What is there already is not fetched again, what a
    kill left is gone on with, and any number of ranks and jobs may ask at once. Prints where the data come from and under
    which licence. A run does the same by itself where its data sets say download: true.
    """
    words = hydra_words(config_dir, config_name, overrides)
    os.execv(sys.executable, [sys.executable, "-u", str(PACKAGE), "-m", "train.prepare", *words])
