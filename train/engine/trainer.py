"""Run a training job: build, open the run folder, restore, train, write the summary."""

import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from phalanx.common.files import finite, write_json
from phalanx.common.meter import Meter, goodput, minor_faults
from phalanx.common.redaction import redact, secrets_of
from phalanx.compose.compose import Composed
from phalanx.compose.digest import digest
from phalanx.config.metric_direction import TEST
from phalanx.config.run_root import folder_of_run
from phalanx.config.schema import CheckpointConfig, Config
from phalanx.config.time_limit import seconds_of
from phalanx.exit import folder_file, user_error
from phalanx.exit.codes import ConfigError, ExitCode, Failure
from phalanx.exit.disk_errors import writing
from phalanx.exit.signals import Signals, StopRequest, grace_s_of, until_step
from phalanx.run_folder import code_hash, environment, lease, lease_holders, names, rank_logs
from phalanx.run_folder.checkpoints import Checkpoint, Checkpoints
from phalanx.run_folder.stop_file import StopFile
from phalanx.system.module_path import PACKAGE, ROOT

from ..checkpoint import state, stream_position, weights
from ..checkpoint.open_run import OpenRun, RunRecord, finished, open_run
from ..checkpoint.progress import Progress
from ..checkpoint.saver import SynchronousSaver
from ..distributed.stop_agreement import StopAgreement
from ..distributed.world import World
from ..evaluation.best_weights import best_weights
from ..loading import data_hash
from ..loading.workers import fork_server
from ..loading.workers.workers import run_in_worker
from ..sinks.jsonl import undone_steps
from ..sinks.open import check_sinks, open_sinks
from ..sinks.sink import NullSink, Sink
from ..start_point import extend_from
from ..start_point.weight_files import sha256_of
from ..stopping.average_last import AverageLast, average_last, restore_average, steps_needed
from ..stopping.early_stop import early_stop
from ..stopping.retention import retain
from ..stopping.time_limit import TimeLimit
from ..stopping.time_spent import TimeSpent
from ..tasks.now import Now
from .build import Parts, build, packages, set_up_process, targets
from .loop import TrainLoop
from .metric_window import MetricWindow
from .recorder import Recorder, saved_step, write_failure_of_rank_zero
from .sanity_check import sanity_check

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
    parts, names = _prepare(composed, world)
    last = average_last(config, parts.loader.timeline.step, parts.loader.timeline.steps)
    opened, release = _open(composed, parts, world)
    afterwards.append(lambda _: release())
    _tell_folder(opened.path, composed, world)
    if opened.summary is not None:
        release()
        return _print_finished(opened.path, opened.summary, signals, world)
    world.raise_on_all(lambda: _open_log(opened, world))  # all ranks take part
    spent = _time_spent(config, opened, world, started)
    progress = _continue_or_begin(parts, opened, config.checkpoint, last, world, started)
    # All ranks take part; rank 0 reads.
    dropped = world.raise_on_all(
        lambda: _undone(opened, progress.step) if world.is_rank_zero and not opened.new else {}
    )
    recorder = _recorder(composed, opened, parts, progress, world)
    write_failure = recorder.failed if world.is_rank_zero else partial(write_failure_of_rank_zero, opened.path, world)
    afterwards.append(write_failure)
    meter = Meter(progress.seconds, time.monotonic, minor_faults)
    meter.add("start", time.monotonic() - started)
    _log_start(recorder, [*opened.notes, *composed.notes], opened, parts, world, started, dropped)
    checkpoints = Checkpoints(opened.path, opened.incarnation)
    saver, window = SynchronousSaver(checkpoints, digest(config)), MetricWindow(names)
    afterwards.append(lambda _: saver.abort())
    grace_s = config.stop.grace_s or grace_s_of(os.environ)
    with _stopping(signals, opened, world, _time_limit(config, progress, spent)) as stop:
        early = early_stop(config, parts.loader.timeline.step, parts.loader.timeline.steps)
        loop = TrainLoop(
            config, world, parts, progress, meter, recorder, checkpoints, saver, window, stop, grace_s, early, last
        )
        request = loop.fit()
    if request is None:
        _finish(opened, progress, parts, recorder, meter, world)
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


def _continue_or_begin(
    parts: Parts, opened: OpenRun, kept: CheckpointConfig, last: AverageLast | None, world: World, started: float
) -> Progress:
    """Load the newest good checkpoint, else the start point of a new run. All ranks call it."""
    progress = _restore_or_begin(parts, opened, kept, last, world, started)
    progress.world_sizes = sorted({*progress.world_sizes, world.size})
    parts.task.now = Now(progress.step, parts.loader.timeline.steps)
    return progress


def _restore_or_begin(
    parts: Parts, opened: OpenRun, kept: CheckpointConfig, last: AverageLast | None, world: World, started: float
) -> Progress:
    world.watchdog.at("restore", 0)
    checkpoints = Checkpoints(opened.path, opened.incarnation)
    # All ranks take part; rank 0 looks for the checkpoint and sends it.
    newest = world.broadcast_object(
        world.raise_on_all(lambda: _newest(opened, checkpoints) if world.is_rank_zero else None)
    )
    if newest is not None:
        progress = world.raise_on_all(lambda: state.restore(parts.state, newest))  # all ranks take part
        if last is not None:
            restore_average(parts.state, newest)  # all ranks take part
        if world.is_rank_zero:  # the last start may have died before it did
            needed = steps_needed(last, parts.state, progress.step)
            retain(checkpoints, kept, [step for step, _ in progress.top], needed)
        return progress
    began = time.time() - (time.monotonic() - started) if opened.began is None else opened.began
    extends = parts.start_point.extends
    if extends is not None:
        return world.raise_on_all(lambda: extend_from.extend(parts.state, extends, began))  # all ranks take part
    return Progress(began=began)


def _open_log(opened: OpenRun, world: World) -> None:
    with writing(opened.path):
        rank_logs.to_file(opened.path / names.LOGS, world.rank, os.environ)


def _undone(opened: OpenRun, step: int) -> dict[str, float]:
    with writing(opened.path):
        return undone_steps(opened.path, step)


def _newest(opened: OpenRun, checkpoints: Checkpoints) -> Checkpoint | None:
    """Rank 0 finds the newest good checkpoint, then cleans up. Raises ConfigError, and changes nothing, if saved
    checkpoints are missing or damaged."""
    found, bad = checkpoints.newest_good()
    with writing(opened.path):  # what cannot be read there could not be written either
        saved = saved_step(opened.path)
    if found is None and (bad or saved):
        told = "; ".join(f"{folder.name}: {why}" for folder, why in bad.items())
        raise ConfigError(
            f"No checkpoint of {checkpoints.folder} can be used ({told or 'there is none'})"
            f"{f', though step {saved} was saved' if saved else ''}. Mount it or bring it back and type the same command "
            "again, or run.fresh=true to set the run aside and begin anew. Nothing was changed"
        )
    with writing(opened.path):
        troubles = checkpoints.clean(bad)
        lease_holders.set_from_step(opened.path, opened.incarnation, 0 if found is None else found.step)
    for trouble in troubles:
        logger.warning("%s; continuing from %s", trouble, "the start" if found is None else found.folder.name)
    return found


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
            return open_sinks(config, plain, own, opened.path, step, steps, lambda: _check(opened))

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


@contextmanager
def _stopping(signals: Signals, opened: OpenRun, world: World, limit: TimeLimit | None) -> Iterator[StopAgreement]:
    """The stop agreement over signals and, on rank 0, the stop file, the loss of the lease and the time limit."""
    sources: list[Callable[[], StopRequest | None]] = [signals.request]
    if world.is_rank_zero:
        sources += [StopFile(opened.path, opened.incarnation).request, lambda: _lease_lost(opened)]
        sources += [] if limit is None else [limit.request]
    signals.keep()
    stop = StopAgreement(world.store, world.rank, world.size, sources, until_step(os.environ))
    yield stop
    if stop.close():
        signals.close()


def _time_spent(config: Config, opened: OpenRun, world: World, started: float) -> TimeSpent | None:
    """Counts what all starts took, on rank 0 where there is a limit."""
    if config.train.time_limit is None or not world.is_rank_zero:
        return None
    return TimeSpent(opened.path, opened.incarnation, time.monotonic() - started, time.monotonic)


def _time_limit(config: Config, progress: Progress, spent: TimeSpent | None) -> TimeLimit | None:
    """`progress` has what earlier starts spent, less what restarts threw away, and what this one did up to here."""
    typed = config.train.time_limit
    if typed is None or spent is None:
        return None
    spent.at_least(sum(progress.seconds.values()))
    return TimeLimit(typed, seconds_of(typed), spent, progress)


def _lease_lost(opened: OpenRun) -> StopRequest | None:
    message = lease.takeover_message(opened.path, opened.incarnation)
    return None if message is None else StopRequest(ExitCode.CONFIG, message)


def _finish(opened: OpenRun, progress: Progress, parts: Parts, recorder: Recorder, meter: Meter, world: World) -> None:
    """Evaluate on data.test, and write the summary, which makes the run finished, so comes last, before the sinks close."""
    world.watchdog.at("finish", progress.step)
    sha256 = weights.weights_sha256(parts.state.strategy.full_weights())  # all ranks take part
    tested = _test(opened, progress, parts, recorder, meter, world)
    wall_s = time.time() - progress.began
    summary = {
        "steps": progress.step,
        "ended_by": progress.ended_by or "steps",
        "samples": progress.position,
        "skipped": progress.skips,
        **({"skipped_steps": progress.skipped_steps} if progress.skipped_steps else {}),
        "eval": progress.evaluation,
        **tested,
        "best": {"step": progress.best_step, "value": progress.best_value},
        "world_sizes": progress.world_sizes,
        "wall_s": wall_s,
        **goodput(progress.seconds, wall_s),
        "weights_sha256": sha256,
    }
    recorder.event("finish", weights_sha256=sha256, ended_by=summary["ended_by"])
    world.raise_on_all(lambda: _write_summary(opened, summary) if world.is_rank_zero else None)
    recorder.close({**summary, "folder": str(opened.path)})


def _test(
    opened: OpenRun, progress: Progress, parts: Parts, recorder: Recorder, meter: Meter, world: World
) -> dict[str, Any]:
    """The part of the summary that tells of data.test, evaluated with the best weights. All ranks call it."""
    evaluation, begin = parts.evaluations.test, time.monotonic()
    if evaluation is None:
        return {}
    world.watchdog.at("evaluate", progress.step)
    facts = {"act": "in the evaluation at the end", "step": progress.step, "set": evaluation.key}
    with (
        meter.part("evaluate"),
        user_error.context(**facts),
        best_weights(parts.state, progress, opened.path) as (
            step,
            average,
        ),  # all ranks take part, here and in what follows
    ):
        found = evaluation(parts.state.model, average, world)
    recorder.write_evaluation(TEST, found, weights_step=step, took_s=round(time.monotonic() - begin, 3))
    return {TEST: found.metrics}


def _check(opened: OpenRun) -> None:
    lease.check(opened.path, opened.incarnation)


def _write_summary(opened: OpenRun, summary: Mapping[str, Any]) -> None:
    _check(opened)
    with writing(opened.path):
        write_json(opened.path / names.SUMMARY, finite(summary))
