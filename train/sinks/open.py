"""Open the sinks (trackers and files) that a run's config asks for."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from phalanx.config.metric_direction import of_checkpoint
from phalanx.config.schema import Config
from phalanx.exit.codes import ConfigError

from .sink import FanOut, Sink


def check_sinks(config: Config, environ: Mapping[str, str]) -> None:
    """Raise ConfigError if a sink lacks a package or setting, before the run folder is created."""
    from phalanx.config.wandb_mode import resolve_mode

    from .tensorboard import summary_writer

    resolve_mode(config.wandb.mode.name, environ)
    if config.tensorboard.enabled:
        summary_writer()
    for name, asked in (("mlflow", config.mlflow), ("trackio", config.trackio)):
        if asked.enabled and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{name}.enabled=true was set, and there is no package {name}. Type: pip install 'phalanx[{name}]'"
            )


def open_sinks(
    config: Config,
    plain: Mapping[str, Any],
    own: Mapping[str, Callable[[], Sink]],
    folder: Path,
    step: int,
    steps: int,
    check: Callable[[], None],
) -> Sink:
    """The sinks of the run in `folder`, which continues after `step` of `steps` steps. Only rank 0 calls it.

    `plain` is the config without secrets, `own` what builds the user's own sinks, by name; `check` raises when this process
    may not write to `folder` any more.
    """
    from .console import Console
    from .evaluation_files import EvaluationFiles
    from .jsonl import JsonLines
    from .rank_log import RankLog
    from .show_later import ShowLater
    from .shown_retention import ShownRetention

    sinks: list[Sink] = [
        JsonLines(folder, step, check),
        Console(steps, sys.stdout, None, time.monotonic),
        RankLog(steps),
        EvaluationFiles(folder, check, ShownRetention(folder, step, config.log.keep_shown, of_checkpoint(config))),
    ]
    if config.tensorboard.enabled:
        from .tensorboard import TensorBoard

        sinks.append(TensorBoard(folder, step))
    sinks += _trackers(config, plain, folder)
    for name, build in own.items():
        from .own_sink import OwnSink

        sinks.append(OwnSink(f"sinks.{name}", partial(_opened, build, folder.absolute(), plain, step)))
    return ShowLater(FanOut(sinks))


def _opened(build: Callable[[], Sink], folder: Path, plain: Mapping[str, Any], step: int) -> Sink:
    sink = build()
    sink.open(folder, plain, step)
    return sink


def _trackers(config: Config, plain: Mapping[str, Any], folder: Path) -> list[Sink]:
    """Call it once metrics.jsonl has the lines of this run alone that the start continues from."""
    from phalanx.config.wandb_mode import resolve_mode

    mode = resolve_mode(config.wandb.mode.name, os.environ)
    if mode == "disabled" and not (config.mlflow.enabled or config.trackio.enabled):
        return []
    from .trackers.attached_files import attached_files, git_commit
    from .trackers.best_values import best_so_far

    best = best_so_far(config.checkpoint, folder)
    shared = {"config": {**plain, "git_commit": git_commit(folder)}, "files": attached_files(folder)}
    found: list[Sink] = []
    if mode != "disabled":
        from .trackers.wandb_names import wandb_names
        from .trackers.weights_and_biases import WeightsAndBiases

        names = wandb_names(config.wandb, config.run.name, folder, os.environ)
        finish_s = config.wandb.finish_timeout_s
        found.append(
            WeightsAndBiases(folder, mode=mode, **names, **shared, best=deepcopy(best), finish_timeout_s=finish_s)
        )
    if config.mlflow.enabled:
        from .trackers.mlflow_tracker import MLflow

        found.append(MLflow(folder, config.mlflow, environ=os.environ, **shared, best=deepcopy(best)))
    if config.trackio.enabled:
        from .trackers.trackio_tracker import Trackio

        found.append(Trackio(folder, config.trackio, config=shared["config"], best=deepcopy(best)))
    return found
