"""Run a training job: build, open the run folder, restore, train, write the summary."""

import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from phalanx.common.meter import Meter, minor_faults
from phalanx.common.redaction import redact, secrets_of
from phalanx.compose.compose import Composed
from phalanx.compose.digest import digest
from phalanx.config.run_root import folder_of_run
from phalanx.exit import folder_file, user_error
from phalanx.exit.codes import ExitCode, Failure
from phalanx.exit.disk_errors import writing
from phalanx.exit.signals import Signals, grace_s_of
from phalanx.run_folder import code_hash, environment, lease, names, rank_logs
from phalanx.run_folder.checkpoints import Checkpoints
from phalanx.system.module_path import PACKAGE, ROOT

from ..checkpoint import stream_position
from ..checkpoint.open_run import OpenRun, RunRecord, finished, open_run
from ..checkpoint.progress import Progress
from ..checkpoint.saver import SynchronousSaver
from ..distributed.world import World
from ..loading import data_hash
from ..loading.workers import fork_server
from ..loading.workers.workers import run_in_worker
from ..sinks.open import check_sinks, open_sinks
from ..sinks.sink import NullSink, Sink
from ..start_point import extend_from
from ..start_point.weight_files import sha256_of
from ..stopping.average_last import average_last
from ..stopping.early_stop import early_stop
from .finish import finish
from .loop.metric_window import MetricWindow
from .loop.recorder import Recorder, write_failure_of_rank_zero
from .loop.run_context import RunContext
from .loop.saves import Saves
from .loop.train_loop import TrainLoop
from .parts.build import Parts, build
from .parts.config_targets import packages, targets
from .parts.process_setup import set_up_process
from .restore import continue_or_begin, undone
from .sanity_check import sanity_check
from .stop_sources import stopping, time_limit, time_spent

logger = logging.getLogger(__name__)


def run(
    composed: Composed, world: World, signals: Signals, started: float, afterwards: list[Callable[[Failure], None]]
) -> ExitCode:
    """Train the run that `composed` describes from where it stands, to its end or a stop request. All ranks call it.

    `signals` are open already; `started` is time.monotonic() at the process's entry; `afterwards` collects the functions
    to call if the run fails.
    """
    config = composed.config
    world.watchdog.at("build", 0)
    # All ranks take part in this and in what follows, up to the end of the run.
    done = world.broadcast_object(world.raise_on_all(lambda: finished(config) if world.is_rank_zero else None))
    if done is not None:
        _tell_folder(done[0], composed, world)
        return _print_finished(*done, signals, world)
    parts, metrics = _prepare(composed, world)
    last = average_last(config, parts.loader.timeline.step, parts.loader.timeline.steps)
    opened, release = _open(composed, parts, world)
    afterwards.append(lambda _: release())
    _tell_folder(opened.path, composed, world)
    if opened.summary is not None:
        release()
        return _print_finished(opened.path, opened.summary, signals, world)
    world.raise_on_all(lambda: _open_log(opened, world))  # all ranks take part
    spent = time_spent(config, opened, world, started)
    progress = continue_or_begin(parts, opened, config.checkpoint, last, world, started)
    # All ranks take part; rank 0 reads.
    dropped = world.raise_on_all(lambda: undone(opened, progress.step) if world.is_rank_zero and not opened.new else {})
    recorder = _recorder(composed, opened, parts, progress, world)
    write_failure = recorder.failed if world.is_rank_zero else partial(write_failure_of_rank_zero, opened.path, world)
    afterwards.append(write_failure)
    meter = Meter(progress.seconds, time.monotonic, minor_faults)
    meter.add("start", time.monotonic() - started)
    _log_start(recorder, [*opened.notes, *composed.notes], opened, parts, world, started, dropped)
    checkpoints = Checkpoints(opened.path, opened.incarnation)
    saver = SynchronousSaver(checkpoints, digest(config))
    afterwards.append(lambda _: saver.abort())
    context = RunContext(config, world, parts, progress, meter, recorder, MetricWindow(metrics))
    saves = Saves(context, saver, checkpoints, last, config.stop.grace_s or grace_s_of(os.environ))
    early = early_stop(config, parts.loader.timeline.step, parts.loader.timeline.steps)
    with stopping(signals, opened, world, time_limit(config, progress, spent)) as stop:
        request = TrainLoop(context, saves, stop, early).fit()
    if request is None:
        finish(context, opened)
    elif world.is_rank_zero:
        print(f"stopped after step {progress.step} and saved; the same command continues")
    release()
    return ExitCode.FINISHED if request is None else request.code


def _prepare(composed: Composed, world: World) -> tuple[Parts, list[str]]:
    """The parts, after the sanity check, and the names of the metrics. All ranks call it."""
    config = composed.config
    if config.data.workers:
        fork_server.ensure_running()  # where it was not forked, it imports torch while the data sets are built
    world.share_memory(config.world.timeout_s)  # all ranks take part, in this and in what follows
    precision = set_up_process(config, world)
    parts = build(config, targets(config, composed.foreign), world, precision)
    with user_error.context(act="in the sanity check before the first step"):
        names = sanity_check(config, parts, world)
    gc.freeze()  # imported objects live to the end, so no later collection has to scan them
    gc.enable()
    # All ranks take part; rank 0 checks.
    world.raise_on_all(lambda: check_sinks(config, os.environ) if world.is_rank_zero else None)
    return parts, names


def _open(composed: Composed, parts: Parts, world: World) -> tuple[OpenRun, Callable[[], None]]:
    """Rank 0 opens the run folder and acquires its lease, and broadcasts what it found. All ranks call it.

    Returns also the function that releases the lease.
    """
    config = composed.config
    world.watchdog.at("open", 0)

    def act() -> tuple[OpenRun | None, Callable[[], None]]:
        if not world.is_rank_zero:
            return None, lambda: None
        if parts.state.stream is not None and not config.run.fresh:
            stream_position.check_run(folder_of_run(config.run.root, str(config.run.name)), world.size)
        workers, shared = config.data.workers, parts.loader.fetcher.shared
        data = {
            f"data.{name}": run_in_worker(data_hash.hash_data_twice, found, workers, shared)
            for name, found in parts.datasets.items()
        }
        if parts.start_point.weights:
            data["train.init_from"] = sha256_of(parts.start_point.weights)
        if (extends := parts.start_point.extends) is not None and extends.record is not None:
            data[extend_from.KEY] = extends.record
        record = RunRecord(
            digest=digest(config),
            environment=environment.describe(sys.argv, os.environ, ROOT),
            code=code_hash.hash_code(packages(config, targets(config, composed.foreign)), PACKAGE),
            data=data,
            auto={"train.precision": parts.precision.name, "world.device": world.device.type},
        )
        opened, held = open_run(config, _redacted_config(composed), record, attempt=world.rank_env.attempt)
        return opened, held.close if opened.summary is None else held.withdraw

    # All ranks take part in both; rank 0 opens the folder and sends what it found.
    opened, release = world.raise_on_all(act)
    return world.broadcast_object(opened), release


def _tell_folder(path: Path, composed: Composed, world: World) -> None:
    """Once it is known that the run in the folder is that of this config, and whom who typed it trusts."""
    if world.is_rank_zero:
        folder_file.write(path, composed.config.run.trust if composed.foreign else None)


def _open_log(opened: OpenRun, world: World) -> None:
    with writing(opened.path):
        rank_logs.to_file(opened.path / names.LOGS, world.rank, os.environ)


def _sink(composed: Composed, opened: OpenRun, parts: Parts, progress: Progress, world: World) -> Sink:
    """Rank 0's sinks; a NullSink on other ranks. All ranks call it."""

    def act() -> Sink:
        if not world.is_rank_zero:
            return NullSink()
        steps, step = parts.loader.timeline.steps, progress.step
        if step == parts.loader.timeline.step:
            step = 0  # whatever a start before wrote is written anew, an evaluation before step 1 too
        plain, config = _redacted_config(composed), composed.config
        builder = targets(config, composed.foreign)
        own = {
            name: partial(builder.build, node, f"sinks.{name}", Sink)  # type: ignore[type-abstract]
            for name, node in config.sinks.items()
        }
        with writing(opened.path):
            return open_sinks(
                config, plain, own, opened.path, step, steps, partial(lease.check, opened.path, opened.incarnation)
            )

    return world.raise_on_all(act)  # all ranks take part


def _recorder(composed: Composed, opened: OpenRun, parts: Parts, progress: Progress, world: World) -> Recorder:
    config = composed.config
    sink = _sink(composed, opened, parts, progress, world)
    return Recorder(progress, sink, parts.loader, config.train.max_skips, parts.task, config.checkpoint.keep_best)


def _redacted_config(composed: Composed) -> dict[str, Any]:
    """The config without secrets, for files and trackers."""
    return redact(dict(composed.plain), secrets_of(os.environ))


def _log_start(
    recorder: Recorder,
    notes: Sequence[str],
    opened: OpenRun,
    parts: Parts,
    world: World,
    started: float,
    dropped: Mapping[str, float],
) -> None:
    for note in parts.notes if world.is_rank_zero else ():
        logger.warning("%s", note)
    for note in notes:
        logger.warning("%s", note)
    initial = parts.initial if opened.new else None
    extends, told = parts.start_point.extends, dict[str, Any]()
    if extends is not None and recorder.progress.step == extends.step:
        told, jump = extend_from.seam(extends, parts.state)
        if jump is not None:
            logger.warning("%s", jump)
    recorder.event(
        "start" if opened.new else "resume",
        folder=str(opened.path),
        steps=parts.loader.timeline.steps,
        parameters=parts.parameters,
        ranks=world.size,
        device=world.device.type,
        precision=parts.precision.name,
        hosts=dict(Counter(world.hosts)),
        **({"groups": parts.groups} if parts.groups else {}),
        incarnation=opened.incarnation,
        took_s=round(time.monotonic() - started, 3),
        **dropped,
        **({"changed": notes} if notes else {}),
        **told,
        **({} if initial is None else {"init_from": initial.told(), "init_names": initial.names()}),
    )


def _print_finished(path: Path, summary: Mapping[str, Any], signals: Signals, world: World) -> ExitCode:
    if world.is_rank_zero:
        steps = f"{summary['steps']} steps{_ended(summary)}"
        print(f"{path} finished already: {steps}, weights_sha256 {summary['weights_sha256']}")
        print(f"To train it longer type train.steps=… train.extend_from={path}")
    signals.close()
    return ExitCode.FINISHED


def _ended(summary: Mapping[str, Any]) -> str:
    """How a run ended that did not go to its last step."""
    by = summary.get("ended_by")
    return f", ended by {by}" if by not in (None, "steps") else ""
