"""The queue of a sweep's runs: which is trained next, which are held by whom, paused at a rung, or stopped.

All of it is read from the storage each time the lock is taken: other processes and machines take runs, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..search.asha import RungState
from ..search.optuna_study import Search
from ..search.trial_storage import PROMOTED
from ..state.sweep_peers import SweepPeers
from .trial import SCORE, SweepPlan, TrialRun
from .trial_records import TrialRecords, rung_state_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Attributes of a trial, by the place of the run's seed.
_HELD, _STOPPED = "held_by_{}", "stopped_{}"
_NOBODY = ""  # holds a run that was begun


class TrialQueue:
    """The runs of one sweep, as one of the processes that train them sees them."""

    def __init__(self, plan: SweepPlan, search: Search, peers: SweepPeers) -> None:
        self.plan = plan
        self.search = search
        self.records = TrialRecords(plan, search)
        self._peers = peers
        self._mine: set[TrialRun] = set()

    # Runs to train

    def take(self) -> TrialRun | None:
        """Take the next run, which this process holds until `release`; None where there is none right now."""
        with self.search.lock():
            self.search.draw()
            while (trial_run := self._next()) is not None:
                if self.records.was_trained(trial_run):
                    self.records.record_score(trial_run)
                    continue
                self._promote(trial_run.trial)
                self.search.set_attr(trial_run.trial, _HELD.format(trial_run.seed_index), self._peers.name)
                self._mine.add(trial_run)
                return trial_run
            return None

    def release(self, trial_run: TrialRun) -> None:
        """Give a run up. Where its trial is unfinished, any process may take it."""
        self._mine.discard(trial_run)
        with self.search.lock():
            if self.is_mine(trial_run):
                self.search.set_attr(trial_run.trial, _HELD.format(trial_run.seed_index), _NOBODY)

    def mark_stopped(self, trial_run: TrialRun) -> None:
        """Record that a person stopped this run: nobody resumes it before the sweep's command is typed again."""
        self.search.set_attr(trial_run.trial, _STOPPED.format(trial_run.seed_index), True)

    def resume_stopped(self) -> None:
        """Let what a person stopped be taken again: the command was typed again."""
        with self.search.lock():
            for trial, trial_run in self._stopped():
                self.search.set_attr(trial.number, _STOPPED.format(trial_run.seed_index), False)

    def stopped_trials(self) -> list[int]:
        """The trials that a person stopped."""
        return sorted({trial.number for trial, _ in self._stopped()})

    def is_mine(self, trial_run: TrialRun) -> bool:
        """Whether this process still holds a run: nobody has taken it over, and its trial is unfinished."""
        trial = self.search.trials()[trial_run.trial]
        return not trial.state.is_finished() and _holder(trial, trial_run) == self._peers.name

    def prefetch(self) -> None:
        """Sample and compose a new trial before a slot is free for it."""
        with self.search.lock():
            while not (new := [each for each in self._free() if not each.begun]):
                if self.search.ask() is None:
                    return
        self.records.composed(new[0].trial_run)

    def is_any_running(self) -> bool:
        """Whether any run is, here or elsewhere: also one whose ranks save and leave because their sweep was killed."""
        trials = self.records.unfinished()
        at_work = self._at_work(trials)
        return any(
            self._taken(trial, trial_run, at_work) or self._is_alive(trial_run)
            for trial in trials
            for trial_run in self.plan.trial_runs(trial.number)
        )

    def is_over(self) -> bool:
        """Whether nothing is left that could ever be taken: all that is open waits at a rung in vain, or for a person."""
        if self.is_any_running():
            return False
        paused = self.records.paused()
        return all(each.trial_run.trial in paused for each in self._free()) and self._leader() is None

    def _next(self) -> TrialRun | None:
        while True:
            free, paused = self._free(), self.records.paused()
            for each in self._furthest_first(free):
                if each.begun and each.trial_run.trial not in paused and not self._is_alive(each.trial_run):
                    return each.trial_run
            for each in free:
                if not each.begun:
                    return each.trial_run
            if self.search.ask() is None:
                leader = self._leader()
                return None if leader is None or self.is_any_running() else leader

    def _furthest_first(self, free: "Sequence[_Free]") -> "Sequence[_Free]":
        asha = self.plan.asha
        return free if asha is None else sorted(free, key=lambda each: (-asha.reached(each.rung_state), each.trial_run))

    def _leader(self) -> TrialRun | None:
        """Of few trials none may be good enough for the next rung: once nothing is under way, the best one is trained to
        its end all the same, unless that is one that has ended. One that ended early at a lower rung, or was worse there,
        is none."""
        asha = self.plan.asha
        if asha is None:
            return None
        paused = self.records.paused()
        waiting = {each.trial_run.trial: each.rung_state for each in self._free() if each.trial_run.trial in paused}
        done = {trial.number: rung_state_of(trial) for trial in self.search.completed()}
        leader = asha.best_paused({**waiting, **done})
        return TrialRun(leader, 0) if leader in waiting and leader is not None else None

    def _promote(self, number: int) -> None:
        asha, rung_state = self.plan.asha, self.records.rung_state(number)
        if asha is not None and (reached := asha.reached(rung_state)) > rung_state.promoted:
            self.search.set_attr(number, PROMOTED, reached)

    def _free(self) -> "list[_Free]":
        """The runs of open trials that nobody trains, that have no score yet and that nobody stopped, in order."""
        trials = self.records.unfinished()
        at_work = self._at_work(trials)
        return [
            _Free(trial_run, begun=_holder(trial, trial_run) is not None, rung_state=rung_state_of(trial))
            for trial in trials
            for trial_run in self.plan.trial_runs(trial.number)
            if SCORE.format(trial_run.seed_index) not in trial.user_attrs
            and not trial.user_attrs.get(_STOPPED.format(trial_run.seed_index))
            and not self._taken(trial, trial_run, at_work)
        ]

    def _stopped(self) -> "list[tuple[FrozenTrial, TrialRun]]":
        undecided = [trial for trial in self.search.trials() if not trial.state.is_finished()]
        pairs = [(trial, trial_run) for trial in undecided for trial_run in self.plan.trial_runs(trial.number)]
        return [
            (trial, trial_run)
            for trial, trial_run in pairs
            if trial.user_attrs.get(_STOPPED.format(trial_run.seed_index))
        ]

    def _at_work(self, trials: "Iterable[FrozenTrial]") -> set[str]:
        """Of the processes that took runs of these trials last, those that live."""
        names = {_holder(trial, trial_run) for trial in trials for trial_run in self.plan.trial_runs(trial.number)}
        return {name for name in names if name and self._peers.is_alive(name)}

    def _taken(self, trial: "FrozenTrial", trial_run: TrialRun, at_work: set[str]) -> bool:
        holder = _holder(trial, trial_run)
        return trial_run in self._mine if holder == self._peers.name else holder in at_work

    def _is_alive(self, trial_run: TrialRun) -> bool:
        """Whether ranks hold it, as those whose sweep was killed do until they have saved."""
        run = self.plan.run(trial_run)
        return run.exists() and self._peers.probe.live(run) is not None

    def prune_paused(self) -> None:
        """Prune the trials paused at a rung, once nothing runs, unless a stopped run may still come to a rung."""
        if self._stopped():
            return
        paused = self.records.paused()
        for trial in self.records.unfinished():
            if trial.number in paused:
                self.search.prune(trial.number)
        self.records.unfinished()  # those that are the same runs share it

    def states(self) -> dict[int, str]:
        """Of each trial whose end is open: running, stopped (by a person), waiting (at a rung), or queued."""
        undecided = [trial for trial in self.search.trials() if not trial.state.is_finished()]
        at_work, paused, stopped = self._at_work(undecided), self.records.paused(), self.stopped_trials()

        def state(trial: "FrozenTrial") -> str:
            if any(self._taken(trial, trial_run, at_work) for trial_run in self.plan.trial_runs(trial.number)):
                return "running"
            if trial.number in stopped:
                return "stopped"
            return "waiting" if trial.number in paused else "queued"

        return {trial.number: state(trial) for trial in undecided}


@dataclass(frozen=True)
class _Free:
    """A run to take. `begun`: somebody took it before."""

    trial_run: TrialRun
    begun: bool
    rung_state: RungState


def _holder(trial: "FrozenTrial", trial_run: TrialRun) -> str | None:
    """The name of the process that trains the run, if it lives; None of a run that nobody began."""
    found: str | None = trial.user_attrs.get(_HELD.format(trial_run.seed_index))
    return found
