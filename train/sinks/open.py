"""Open the sinks (trackers and files) that a run's config asks for."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phalanx.config.schema import Config
from phalanx.run_folder import names

from .sink import FanOut, Sink


def check_sinks(config: Config, environ: Mapping[str, str]) -> None:
    """Raise ConfigError if a sink lacks a package or setting, before the run folder is created."""
    from phalanx.config.wandb_mode import resolve_mode

    from .tensorboard import summary_writer

    resolve_mode(config.wandb.mode.name, environ)
    if config.tensorboard.enabled:
        summary_writer()


def open_sinks(
    config: Config, plain: Mapping[str, Any], folder: Path, step: int, steps: int, check: Callable[[], None]
) -> Sink:
    """The sinks of the run in `folder`, which continues after `step` of `steps` steps. Only rank 0 calls it.

    `plain` is the config without secrets; `check` raises when this process may not write to `folder` any more.
    """
    from phalanx.config.wandb_mode import resolve_mode

    from .console import Console
    from .jsonl import JsonLines
    from .rank_log import RankLog
    from .wandb_names import wandb_names
    from .weights_and_biases import WeightsAndBiases

    sinks: list[Sink] = [
        JsonLines(folder, step, check),
        Console(steps, sys.stdout, None, time.monotonic),
        RankLog(steps),
    ]
    if config.tensorboard.enabled:
        from .tensorboard import TensorBoard

        sinks.append(TensorBoard(folder, step))
    git = json.loads((folder / names.ENVIRONMENT).read_text(encoding="utf-8"))["git"]
    sinks.append(
        WeightsAndBiases(
            folder,
            mode=resolve_mode(config.wandb.mode.name, os.environ),
            **wandb_names(config.wandb, config.run.name, folder, os.environ),
            config={**plain, "git_commit": None if git is None else git["commit"]},
            finish_timeout_s=config.wandb.finish_timeout_s,
        )
    )
    return FanOut(sinks)
