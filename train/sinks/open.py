"""Open the sinks (trackers and files) that a run's config asks for."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phalanx.config.schema import Config

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
    from .console import Console
    from .evaluation_files import EvaluationFiles
    from .jsonl import JsonLines
    from .rank_log import RankLog

    sinks: list[Sink] = [
        JsonLines(folder, step, check),
        Console(steps, sys.stdout, None, time.monotonic),
        RankLog(steps),
        EvaluationFiles(folder, check),
    ]
    if config.tensorboard.enabled:
        from .tensorboard import TensorBoard

        sinks.append(TensorBoard(folder, step))
    return FanOut([*sinks, *_trackers(config, plain, folder)])


def _trackers(config: Config, plain: Mapping[str, Any], folder: Path) -> list[Sink]:
    """Call it once metrics.jsonl has the lines of this run alone that the start continues from."""
    from phalanx.config.wandb_mode import resolve_mode

    mode = resolve_mode(config.wandb.mode.name, os.environ)
    if mode == "disabled":
        return []
    from .trackers.attached_files import attached_files, git_commit
    from .trackers.best_values import best_so_far
    from .trackers.wandb_names import wandb_names
    from .trackers.weights_and_biases import WeightsAndBiases

    return [
        WeightsAndBiases(
            folder,
            mode=mode,
            **wandb_names(config.wandb, config.run.name, folder, os.environ),
            config={**plain, "git_commit": git_commit(folder)},
            files=attached_files(folder),
            best=best_so_far(config.checkpoint, folder),
            finish_timeout_s=config.wandb.finish_timeout_s,
        )
    ]
