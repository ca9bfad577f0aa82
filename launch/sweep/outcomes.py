"""Decides what becomes of a trial by its evaluations and by how its runs end: prune, fail, retry or complete."""

import time
from dataclasses import dataclass
from pathlib import Path

from phalanx.config.schema import Mode
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.run_folder import liveness
from phalanx.run_folder.jsonl import number, read_events, whole
from phalanx.run_folder.stop_file import StopFile

from ..search.trial_storage import ENERGY_J, RANK_S, STEPS
from .attempt import Attempt, exit_cause_of
from .trial import TrialRun
from .trial_queue import TrialQueue

_KILLS = "kills_{}"  # attribute of a trial, by the place of the run's seed
_TRIES = 3  # of a run whose ranks are killed


@dataclass(frozen=True)
class Halt:
    """The sweep cannot go on before somebody mends what `trouble` names; `code` is what it exits with."""

    trouble: ConfigError
    code: ExitCode


class TrialOutcomes:
    """Writes what is decided to the storage, of runs that this process still holds."""

    def __init__(self, queue: TrialQueue) -> None:
        self._queue = queue
        self._plan = queue.plan
        self._search = queue.search

    def follow(self, attempt: Attempt) -> None:
        """Report evaluations, and ask a run to leave whose trial the pruner ends. Raises ConfigError where the metric is
        none of the task."""
        for entry in attempt.evaluations.new():
            if self._plan.metric_name not in entry:
                names = ", ".join(name for name in entry if name not in ("step", "split", "time"))
                raise ConfigError(
                    f"sweep.metric={self._plan.metric} is no metric of the task, which has {names}. Type one of them"
                )
            if not self._report(attempt, entry["step"], self._number(entry[self._plan.metric_name])):
                return
        if attempt.pruned:
            _ask_to_leave(attempt.run)

    def _report(self, attempt: Attempt, step: int, value: float) -> bool:
        """Returns whether this process still holds the run."""
        trial = attempt.trial_run.trial
        with self._search.lock():
            if step <= max(self._queue.records.rung_state(trial).values, default=0):
                return True
            if not self._queue.is_mine(attempt.trial_run):
                return False
            prunes = self._search.report(trial, step, value)
            steps = self._steps(attempt)
            attempt.pruned |= prunes and step < steps
            return True

    def settle(self, attempt: Attempt, is_leaving: bool) -> Halt | None:
        """Decide what a run that has ended means for its trial. `is_leaving`: all runs were told to leave. To be called
        with the lock held."""
        if not self._queue.is_mine(attempt.trial_run):
            return None
        self._add_cost(attempt)
        return self._decide(attempt, is_leaving)

    def _decide(self, attempt: Attempt, is_leaving: bool) -> Halt | None:
        trial, cause = attempt.trial_run.trial, exit_cause_of(attempt)
        if cause.code is ExitCode.FINISHED:
            self._queue.records.record_score(attempt.trial_run)
        elif cause.code is ExitCode.STOPPED and attempt.pruned:
            self._search.prune(trial)
        elif cause.code is ExitCode.PREEMPTED or is_leaving:
            return None  # its end stays open
        elif cause.code is ExitCode.STOPPED:
            if not self._reached_its_rung(attempt):
                self._queue.mark_stopped(attempt.trial_run)
        elif cause.code is ExitCode.NO_ROOM or (cause.code is ExitCode.CONFIG and attempt.resumes):
            # A config that was good when the run began is no failure of the trial: what is here has changed.
            return Halt(ConfigError(f"trial {trial}: {cause.message}"), cause.code)
        elif not (attempt.was_killed and self._count_kill(attempt.trial_run) < _TRIES):
            self._search.fail(trial, cause.message, cause.code is ExitCode.OUT_OF_MEMORY)
        return None

    def _add_cost(self, attempt: Attempt) -> None:
        """Add what this start cost to what its trial has cost so far."""
        spent_s = (time.monotonic() - attempt.began) * self._plan.config.ranks
        for name, more in ((RANK_S, spent_s), (ENERGY_J, attempt.used_j)):
            if more is not None:
                before: float = self._search.attr(attempt.trial_run.trial, name, 0.0)
                self._search.set_attr(attempt.trial_run.trial, name, before + more)

    def _reached_its_rung(self, attempt: Attempt) -> bool:
        """Whether it left because it was to go no further, and was evaluated there."""
        return (
            attempt.until is not None
            and attempt.until in self._queue.records.rung_state(attempt.trial_run.trial).values
        )

    def _count_kill(self, trial_run: TrialRun) -> int:
        """How often its ranks were killed by now, this time included."""
        name = _KILLS.format(trial_run.seed_index)
        kills: int = self._search.attr(trial_run.trial, name, 0) + 1
        self._search.set_attr(trial_run.trial, name, kills)
        return kills

    def _steps(self, attempt: Attempt) -> int:
        """Steps of the whole run, as it wrote them when it began; 0 where it did not."""
        known: int = self._search.attr(attempt.trial_run.trial, STEPS, 0)
        if not known:
            written = [whole(event.get("steps")) for event in read_events(attempt.run)]
            known = next(filter(None, written), 0)
            if known:
                self._search.set_attr(attempt.trial_run.trial, STEPS, known)
        return known

    def _number(self, value: object) -> float:
        """A value to compare by: one that is not finite is the worst there is."""
        found = number(value)
        worst = float("inf") if self._plan.mode is Mode.min else -float("inf")
        return worst if found is None else found


def _ask_to_leave(run: Path) -> None:
    """Once for each start, which may be none that listens yet."""
    holder = liveness.live(run)
    if holder is not None and (stop := StopFile(run, holder.incarnation)).request() is None:
        stop.ask()
