"""Record a run: lines of metrics, events, and the count of skipped steps."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phalanx.common.files import read_bytes
from phalanx.common.meter import Spent, rates
from phalanx.config.metric_direction import Results, WatchedMetric, as_stored
from phalanx.exit.codes import Failure, GaveUp
from phalanx.run_folder import names

from ...checkpoint.progress import Progress, StepRecord
from ...distributed.world import World
from ...evaluation.evaluate import Found
from ...freezing.phased_updater import PhasedUpdater
from ...loading.loader import Loader
from ...optim.updater import Updater
from ...sinks.sink import Sink
from ...tasks.answer import derived
from ...tasks.task import Sum, Task
from .metric_window import mean

_GIB = 2**30
_LISTED = 1000  # skipped steps that a summary names; events.jsonl has all


@dataclass
class Recorder:
    """Counts the step records, which are the same on every rank, and writes to `sink`: NullSink but on rank 0."""

    progress: Progress
    sink: Sink
    loader: Loader
    max_skips: int
    task: Task
    keep_best: int  # evaluations of which `Progress.top` holds the steps

    def __post_init__(self) -> None:
        # Of the last line, or where this start began.
        self.lined_step, self._lined_position = self.progress.step, self.progress.position

    def event(self, name: str, **facts: object) -> None:
        self.sink.event({"time": time.time(), "event": name, "step": self.progress.step, **facts})

    def sync(self) -> None:
        self.sink.sync()

    def failed(self, failure: Failure) -> None:
        """Write the events of `failure` and close the sinks."""
        for event in _of(failure):
            self.event(**event)
        self.sink.close(None)

    def close(self, summary: dict[str, Any] | None) -> None:
        """Close the sinks; `summary` is None if the run stops before its end."""
        self.sink.close(summary)

    def take(self, records: Sequence[StepRecord]) -> None:
        """Count applied and skipped steps. All ranks call it with the same records.

        Raises GaveUp after `max_skips` skipped steps in a row. An overflow does not count while the scale can fall.
        """
        progress = self.progress
        progress.records += records
        for record in records:
            if not record.skipped:
                progress.applied += 1
                progress.skips_in_row = 0
                continue
            progress.skips += 1
            progress.skipped_steps = [*progress.skipped_steps, record.step + 1][:_LISTED]
            indices, reason = self.loader.indices(record.step), record.not_finite
            self.event("skip", skipped_step=record.step + 1, not_finite=reason, indices=indices)
            if reason == "overflow":
                continue
            progress.skips_in_row += 1
            if progress.skips_in_row >= self.max_skips:
                raise GaveUp(
                    f"{progress.skips_in_row} steps in a row up to step {record.step + 1} had a {reason} that is not "
                    "finite, and none of them touched the weights. Lower optim.lr, set train.clip_norm, or look at the "
                    f"samples of data.train with the indices {_few(indices)}; train.max_skips allows more"
                )

    def write_train(self, spent: Spent, updater: Updater | PhasedUpdater) -> None:
        """Write one line over the steps since the last. `spent` is this rank's time since then."""
        progress, records = self.progress, self.progress.records
        applied = [record for record in records if not record.skipped]
        names = dict.fromkeys(name for record in records for name in record.ratios)
        sums = {name: [record.ratios.get(name, (0.0, 0.0)) for record in applied] for name in names}
        means = {name: mean(pairs) for name, pairs in sums.items()}
        totals = {name: Sum(sum(t for t, _ in pairs), sum(c for _, c in pairs)) for name, pairs in sums.items()}
        more = derived(self.task, totals) if applied else {}
        skipped = {"skipped": len(records) - len(applied)} if len(applied) < len(records) else {}
        steps, samples = progress.step - self.lined_step, progress.position - self._lined_position
        self.sink.write(
            {
                "step": progress.step,
                "split": "train",
                "time": time.time(),
                "epoch": self.loader.epochs(progress.position),
                **means,
                **more,
                **updater.rates(max(0, progress.applied - (not records[-1].skipped)), progress.step - 1),
                "grad_norm": records[-1].norm,
                **skipped,
                **rates(spent, steps, samples),
                **_memory(updater.applied.device),
            }
        )
        progress.records = []
        self.lined_step, self._lined_position = progress.step, progress.position

    def write_evaluation(self, split: str, found: Found, **facts: object) -> None:
        """Write the event and the line of one set's evaluation, and what the task shows of it."""
        self.evaluation_event(split, found, **facts)
        line = {"step": self.progress.step, "split": split, "time": time.time()}
        self.sink.write({**line, **found.metrics})
        if found.shown:
            self.sink.show(line, found.shown)
        if found.predictions:
            self.sink.predictions(line, found.predictions)

    def evaluation_event(self, split: str, found: Found, **facts: object) -> None:
        self.event("evaluate", split=split, metrics=found.metrics, **facts)

    def take_results(self, results: Results, best: WatchedMetric | None) -> bool:
        """Keep what an evaluation of all sets found; returns whether it is among the best by the metric `best`."""
        progress = self.progress
        progress.evaluation, progress.evaluated = as_stored(results), progress.step
        value = None if best is None else best.value(results)
        if best is None or value is None:
            return False
        before = [(step, known) for step, known in progress.top if step != progress.step]
        place = sum(not best.is_better(value, known) for _, known in before)  # behind an older one of the same value
        progress.top = [*before[:place], (progress.step, value), *before[place:]][: self.keep_best]
        progress.best_step, progress.best_value = progress.top[0]
        return place < self.keep_best


def saved_step(run: Path) -> int | None:
    """The step of the last checkpoint event; None if there is none. Raises OSError."""
    try:
        lines = read_bytes(run / names.EVENTS).splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if entry["event"] == "checkpoint":
                return int(entry["step"])
    return None


def write_failure_of_rank_zero(run: Path, world: World, failure: Failure) -> None:
    """Append the failure to events.jsonl from another rank, if rank 0, which writes it, hangs and does not answer."""
    if failure.hang is None or failure.hang["rank"] != 0 or 0 not in world.failure.silent:
        return
    step = failure.hang["step"]
    lines = [{"time": time.time(), "event": event.pop("name"), "step": step, **event} for event in _of(failure)]
    file = os.open(run / names.EVENTS, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    os.write(file, "".join(json.dumps(line) + "\n" for line in lines).encode())
    os.close(file)


def _of(failure: Failure) -> list[dict[str, Any]]:
    late = failure.hang or {"rank": failure.rank, "host": failure.host}
    error = {"rank": late["rank"], "host": late["host"], "code": failure.code, "message": failure.said.strip()}
    if failure.where:
        error["where"] = failure.where
    hang = [] if failure.hang is None else [{"name": "hang", **failure.hang}]
    return [*hang, {"name": "error", **error}]


def _few(indices: Sequence[int]) -> str:
    listed = ", ".join(map(str, indices[:16]))
    return f"{listed} and {len(indices) - 16} more ({names.EVENTS})" if len(indices) > 16 else listed


def _memory(device: torch.device) -> dict[str, float]:
    """Peak of the GPU memory in tensors so far, GiB; nothing on a CPU."""
    return {"memory_gib": torch.cuda.max_memory_allocated(device) / _GIB} if device.type == "cuda" else {}
