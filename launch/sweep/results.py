"""The results of a sweep: writes and reads sweep.json, writes trials.csv."""

import csv
import io
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.common.files import read_json, write_atomic, write_json
from phalanx.common.redaction import redact_argv
from phalanx.config.schema import Mode
from phalanx.exit.codes import ConfigError
from phalanx.run_folder.jsonl import number

from ..common.sweep_folder import SWEEP, TRIALS
from ..search.space import Choice, Interval, words_in_order
from ..search.trial_storage import ENDED_BY, ENERGY_J, ERROR, RANK_S, SEEDS, STEPS, THREADS
from ..state.sweep import ENDED
from .trial import TrialRun, added

if TYPE_CHECKING:
    from .scheduler import Scheduler

_OF_SWEEP = ("sweep.", "sweep=", "sweep/", "run.name=")  # words that mean nothing to a single run


@dataclass(frozen=True)
class TrialRow:
    """A trial: `state` is running, queued, waiting (at a rung), stopped (by a person), complete, pruned or failed; `step`
    is of its newest evaluation; `rank_s` are seconds that it ran, times its ranks, `energy_j` joules that its GPUs used,
    where measured; `added` are words beside those of its point that its weights depend on; `ended_by` is of a complete one
    what ended it: steps, early_stop or time_limit, of several seeds all that did."""

    trial: int
    state: str
    value: float | None
    by_seed: list[float]
    step: int
    steps: int | None
    rank_s: float
    energy_j: float | None
    words: list[str]
    added: list[str]
    run: str
    error: str | None
    ended_by: str | None = None  # also in the files of older versions

    @property
    def told_state(self) -> str:
        """The state, and of a complete trial what ended it before its last step."""
        return self.state if self.ended_by in (None, "steps") else f"{self.state} by {self.ended_by}"

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def chosen(self) -> list[str]:
        """The point, as texts in the order of the space's dimensions."""
        return [word.partition("=")[2] for word in self.words]


def rows(scheduler: "Scheduler") -> list[TrialRow]:
    """All trials so far, in order."""
    undecided = scheduler.queue.states()
    found = []
    for trial in scheduler.search.trials():
        name = trial.state.name.lower()
        values = trial.intermediate_values
        newest = values[max(values)] if values else None
        found.append(
            TrialRow(
                trial=trial.number,
                state=undecided.get(trial.number) or {"fail": "failed"}.get(name, name),
                value=number(trial.value if name == "complete" else newest),
                by_seed=trial.user_attrs.get(SEEDS, []),
                step=max(values, default=0),
                steps=trial.user_attrs.get(STEPS) or None,
                rank_s=round(trial.user_attrs.get(RANK_S, 0.0), 1),
                energy_j=trial.user_attrs.get(ENERGY_J),
                words=scheduler.plan.space.chosen(trial.params),
                added=added(trial.user_attrs.get(THREADS)),
                run=scheduler.plan.run(TrialRun(trial.number, 0)).name,
                error=trial.user_attrs.get(ERROR),
                ended_by=trial.user_attrs.get(ENDED_BY) if name == "complete" else None,
            )
        )
    return found


def sort_key(value: float | None, mode: Mode) -> float:
    """What to sort by, the best first and what has no value last."""
    if value is None:
        return math.inf
    return value if mode is Mode.min else -value


def best(found: Sequence[TrialRow], mode: Mode) -> TrialRow | None:
    """The best of those trained to their end."""
    done = [row for row in found if row.state == "complete" and row.value is not None]
    return min(done, key=lambda row: (sort_key(row.value, mode), row.trial), default=None)


def write(scheduler: "Scheduler", state: str) -> list[TrialRow]:
    """Write both files anew, whole; returns what is in them. `state` is running or how the sweep ended."""
    with scheduler.search.lock():
        return _written(scheduler, state)


def _written(scheduler: "Scheduler", state: str) -> list[TrialRow]:
    plan, found = scheduler.plan, rows(scheduler)
    first = best(found, plan.mode)
    whole = {
        "state": state,
        "metric": plan.metric,
        "mode": plan.mode.name,
        "trials": scheduler.search.size,
        "ranks": plan.config.ranks,
        "slots": len(scheduler.slots),
        "typed": _redacted(plan.space.typed),
        "dimensions": [vars(dimension) for dimension in plan.space.dimensions],
        "best": None if first is None else vars(first),
        "rows": [vars(row) for row in found],
    }
    write_json(plan.folder / SWEEP, whole)
    text = io.StringIO()
    keys = [dimension.key for dimension in plan.space.dimensions]
    table = csv.writer(text)
    table.writerow(["trial", "state", plan.metric, "step", "steps", "rank_s", "energy_j", *keys, "error", "ended_by"])
    for row in found:
        numbers = [row.value, row.step, row.steps, row.rank_s, row.energy_j]
        table.writerow([row.trial, row.state, *numbers, *row.chosen, row.error, row.ended_by])
    write_atomic(plan.folder / TRIALS, text.getvalue())
    return found


@dataclass(frozen=True)
class SweepResults:
    """What sweep.json of the sweep in `folder` tells; `typed` are the words as they were typed, without secrets, with the
    number of a dimension where a point has a word of its own."""

    folder: Path
    state: str
    metric: str
    mode: Mode
    trials: int
    ranks: int
    typed: list[str | int]
    dimensions: list[Choice | Interval]
    rows: list[TrialRow]

    @property
    def best(self) -> TrialRow | None:
        return best(self.rows, self.mode)

    def words(self, row: TrialRow) -> list[str]:
        """The command line of a trial's point."""
        return [*words_in_order(self.typed, row.words), *row.added]


def read(folder: Path) -> SweepResults:
    """Raises ConfigError where there is no sweep, or one that other versions wrote."""
    told = read_json(folder / SWEEP)
    if not isinstance(told, dict):
        raise ConfigError(f"{folder} is no sweep's folder: it has no {SWEEP}. Type the name of one below runs/")
    try:
        return SweepResults(
            folder=folder,
            state=told["state"],
            metric=told["metric"],
            mode=Mode[told["mode"]],
            trials=told["trials"],
            ranks=told["ranks"],
            typed=told["typed"],
            dimensions=[_dimension(dimension) for dimension in told["dimensions"]],
            rows=[TrialRow(**row) for row in told["rows"]],
        )
    except (KeyError, TypeError):
        raise ConfigError(
            f"{folder / SWEEP} is not as this version writes it. Type the sweep's command again, which writes it anew"
        ) from None


def _redacted(typed: Sequence[str | int]) -> list[str | int]:
    clean = redact_argv([str(word) for word in typed])
    return [word if isinstance(word, int) else text for word, text in zip(typed, clean, strict=True)]


def _dimension(told: dict[str, Any]) -> Choice | Interval:
    if "values" in told:
        return Choice(told["key"], tuple(told["values"]))
    return Interval(told["key"], told["low"], told["high"], told["log"])


@dataclass(frozen=True)
class BestPoint:
    """The best point of a sweep, as words of a command line."""

    words: list[str]
    ranks: int
    title: str


def best_of(sweep: Path) -> BestPoint:
    """Raises ConfigError where a folder has none."""
    found = read(sweep)
    first = found.best
    if first is None:
        raise ConfigError(f"No trial of {sweep} was trained to its end yet, so none is the best")
    title = f"The best of {found.trials} trials of {sweep.resolve().name}: {found.metric} {first.value:.5g}."
    return BestPoint(found.words(first), found.ranks, title)


def command(words: Sequence[str], ranks: int) -> str:
    """That trains a point by itself, to be pasted into a shell; without secrets, as it goes into files."""
    own = [word for word in redact_argv(words) if not word.startswith(_OF_SWEEP)]
    return shlex.join(["phalanx", "run", "-n", str(ranks), *own])
