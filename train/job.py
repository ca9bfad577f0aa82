"""From a config to a finished run: build, open the run folder, continue, train, sum up."""

import gc
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train import environment, fingerprint, logs, resume, weights
from train.build import Parts, build, packages, set_up_process, targets
from train.checkpoint import Checkpoint, Checkpoints, source
from train.compose import Composed
from train.config import Config
from train.data.prefetch import Mover
from train.data.batch import apply
from train.files import write_json
from train.folder import SUMMARY, Facts, Opened, open_run
from train.identity import defining, differences, digest
from train.ledger import Ledger
from train.loop import Run
from train.meter import Meter, goodput
from train.outcome import ConfigError
from train.precision import Precision
from train.progress import Progress
from train.redact import redact, secrets_of
from train.sinks.sink import FanOut, Silent, Sink
from train.window import Window
from train.world import World

ROOT = Path(__file__).resolve().parents[1]

logger = logging.getLogger(__name__)


def run(composed: Composed, world: World, started: float) -> None:
    """Do the run that `composed` describes, or what is left of it. All ranks call it. `started`: time.time() at entry."""
    config = composed.config
    precision = world.together(lambda: set_up_process(config, world))
    parts = world.together(lambda: build(config, targets(config, composed.foreign), world, precision))
    names = _warm_up(config, parts, world)
    gc.freeze()  # what was imported stays, so no later collection has to look at it
    gc.enable()
    opened = _open(composed, parts, precision, world)
    logs.to_file(opened.path / "logs", world.rank, os.environ)
    if (opened.path / SUMMARY).exists() and _finished(opened.path, world):
        return
    checkpoints = Checkpoints(opened.path)
    progress = _start_or_continue(config, parts, checkpoints, world, started)
    sink = world.together(lambda: _sink(composed, opened, parts, progress, world))
    ledger = Ledger(
        progress, sink, parts.loader.timeline, config.train.max_skips, progress.step, progress.position
    )
    progress.world_sizes = sorted({*progress.world_sizes, world.size})
    meter = Meter(progress.seconds, time.monotonic)
    meter.seconds["start"] = meter.seconds.get("start", 0.0) + time.time() - started
    meter.since_mark()
    _announce(ledger, opened, parts, world)
    try:
        Run(config, digest(config), world, parts, progress, meter, ledger, checkpoints, Window(names)).fit()
        summary = _summary(progress, parts, opened.path)
        if world.leads:
            write_json(opened.path / SUMMARY, summary)
        ledger.event("finish", weights_sha256=summary["weights_sha256"])
        sink.close({**summary, "folder": str(opened.path)})
    except BaseException as error:
        ledger.event("error", error=type(error).__name__, message=str(error)[:2000])
        sink.close(None)
        raise


def _warm_up(config: Config, parts: Parts, world: World) -> list[str]:
    """The uncounted backward on the first batch, whichever step this start begins with. All ranks call it."""
    work = next(parts.loader.from_step(parts.loader.timeline.step))
    moved = [(position, apply(batch, parts.mover)) for position, batch in work.pieces]
    found = parts.step.warm_up(type(work)(work.step, work.samples, moved), config.parallel.find_unused)
    names = world.from_leader(found)  # a rank without a sample knows of the loss alone
    best = config.checkpoint.best_metric
    if best is not None and best not in names:
        raise ConfigError(
            f"checkpoint.best_metric={best} is no metric of the task. Type checkpoint.best_metric={names[0]}, or one of "
            f"{', '.join(names)}",
            agreed=True,
        )
    return names


def _open(composed: Composed, parts: Parts, precision: Precision, world: World) -> Opened:
    """Rank 0 opens the run folder, and all learn what it found. All ranks call it."""

    def act() -> Opened | None:
        if not world.leads:
            return None
        config = composed.config
        facts = Facts(
            environment=environment.describe(sys.argv, os.environ, ROOT),
            code=fingerprint.code(packages(config, targets(config, composed.foreign)), ROOT),
            data={name: fingerprint.data(dataset) for name, dataset in parts.datasets.items()},
            auto={"train.precision": precision.name, "world.device": world.device.type},
        )
        plain = redact(dict(composed.plain), secrets_of(os.environ))
        return open_run(config, plain, facts, first_attempt=world.place.attempt == 0)

    return world.from_leader(world.together(act))


def _start_or_continue(
    config: Config, parts: Parts, checkpoints: Checkpoints, world: World, started: float
) -> Progress:
    """Load the newest good checkpoint, or what a new run begins with. All ranks call it."""
    found = world.from_leader(world.together(lambda: _newest(checkpoints) if world.leads else None))
    if found is not None:
        return world.together(lambda: resume.restore(parts.state, found))
    if config.train.extend_from is not None:
        return world.together(lambda: _extend(config, parts, started))
    timeline = parts.loader.timeline
    return Progress(began=started, step=timeline.step, position=timeline.position)


def _newest(checkpoints: Checkpoints) -> Checkpoint | None:
    checkpoints.clean()
    found, troubles = checkpoints.newest_good()
    for trouble in troubles:
        logger.warning("%s; continuing from %s", trouble, "the start" if found is None else found.folder.name)
    return found


def _extend(config: Config, parts: Parts, started: float) -> Progress:
    """Begin where the finished run `train.extend_from` ended. Raises ConfigError unless only its length differs."""
    assert config.train.extend_from is not None
    found = source(Path(config.train.extend_from), want_best=False)
    progress = resume.load_training(parts.state, found)
    return Progress(
        began=started,
        step=progress.step,
        position=progress.position,
        applied=progress.applied,
        skips=progress.skips,
        best_step=None,
    )


def _finished(path: Path, world: World) -> bool:
    """Whether the run in `path` ended; rank 0 says so. All ranks call it."""
    summary: dict[str, Any] = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    if world.leads:
        print(f"{path} finished already: {summary['steps']} steps, weights_sha256 {summary['weights_sha256']}")
        print("To train it longer type train.steps=… train.extend_from=" + str(path))
    return True


def _sink(composed: Composed, opened: Opened, parts: Parts, progress: Progress, world: World) -> Sink:
    """Where rank 0 tells of the run; the other ranks are silent."""
    if not world.leads:
        return Silent()
    from train.sinks.console import Console
    from train.sinks.jsonl import JsonLines
    from train.sinks.wandb_mode import resolve_mode
    from train.sinks.weights_and_biases import WeightsAndBiases

    config, path = composed.config, opened.path
    sinks: list[Sink] = [
        JsonLines(path, progress.step),
        Console(parts.loader.timeline.steps, sys.stdout, None, time.monotonic),
    ]
    if config.tensorboard.enabled:
        from train.sinks.tensorboard import TensorBoard

        sinks.append(TensorBoard(path, progress.step))
    ran = json.loads((path / "environment.json").read_text(encoding="utf-8"))
    commit = None if ran["git"] is None else ran["git"]["commit"]
    sinks.append(
        WeightsAndBiases(
            path,
            mode=resolve_mode(config.wandb.mode.name, os.environ),
            project=config.wandb.project,
            entity=config.wandb.entity,
            group=config.wandb.group,
            tags=config.wandb.tags,
            name=config.run.name,
            config={**redact(dict(composed.plain), secrets_of(os.environ)), "git_commit": commit},
            finish_timeout_s=config.wandb.finish_timeout_s,
        )
    )
    return FanOut(sinks)


def _announce(ledger: Ledger, opened: Opened, parts: Parts, world: World) -> None:
    for note in opened.notes:
        logger.warning("since the run began: %s", note)
    ledger.event(
        "start" if opened.new else "resume",
        folder=str(opened.path),
        parameters=parts.parameters,
        ranks=world.size,
        device=world.device.type,
        precision=parts.precision.name,
        **({"changed": opened.notes} if opened.notes else {}),
    )


def _summary(progress: Progress, parts: Parts, path: Path) -> dict[str, Any]:
    wall_s = time.time() - progress.began
    return {
        "steps": progress.step,
        "samples": progress.position,
        "skipped": progress.skips,
        "eval": progress.evaluation,
        "best": {"step": progress.best_step, "value": progress.best_value},
        "world_sizes": progress.world_sizes,
        "wall_s": wall_s,
        **goodput(progress.seconds, wall_s),
        "weights_sha256": weights.weights_sha256(parts.state.model.state_dict()),
    }
