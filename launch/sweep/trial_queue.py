"""Which runs of a sweep are left to train, and which one is next. All of it is read from the storage, at each turn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phalanx.common.files import read_json
from phalanx.compose.digest import digest
from phalanx.compose.former_digests import former_digests
from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.run_folder.jsonl import number

from ..search.asha import RungState
from ..search.optuna_study import Search
from ..search.trial_storage import BATCH, DIGEST, EVERY, PROMOTED, THREADS
from ..state.sweep_peers import SweepPeers
from .trial import SweepPlan, TrialRun
from .trial_folder import is_elsewhere, is_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from phalanx.compose.compose import Composed

_HELD, _SCORE, _STOPPED = (
    "held_by_{}",
    "score_{}",
    "stopped_{}",
)  # attributes of a trial, by the place of the run's seed
_NOBODY = ""  # holds a run that was begun


class TrialQueue:
    """The runs of one sweep, as one of those that work on it sees them."""

    def __init__(self, plan: SweepPlan, search: Search, peers: SweepPeers) -> None:
        self.plan = plan
        self.search = search
        self._peers = peers
        self._mine: set[TrialRun] = set()
        self._made: dict[TrialRun, Composed] = {}

    # Runs to train

    def take(self) -> TrialRun | None:
        """The next run, this process's until `release`; None where there is none right now."""
        with self.search.lock():
            self.search.draw()
            while (trial_run := self._next()) is not None:
                if self._was_trained(trial_run):
                    self.record_score(trial_run)
                    continue
                self._promote(trial_run.trial)
                self.search.set_attr(trial_run.trial, _HELD.format(trial_run.seed_index), self._peers.name)
                self._mine.add(trial_run)
                return trial_run
            return None

    def release(self, trial_run: TrialRun) -> None:
        """This process has nothing more to do with it. Where its end is open, whoever comes first may take it."""
        self._mine.discard(trial_run)
        with self.search.lock():
            if self.is_mine(trial_run):
                self.search.set_attr(trial_run.trial, _HELD.format(trial_run.seed_index), _NOBODY)

    def mark_stopped(self, trial_run: TrialRun) -> None:
        """A person stopped this run: nobody goes on with it before the sweep's command is typed again."""
        self.search.set_attr(trial_run.trial, _STOPPED.format(trial_run.seed_index), True)

    def resume_stopped(self) -> None:
        """The command was typed again, so what a person stopped goes on."""
        with self.search.lock():
            for trial, trial_run in self._stopped():
                self.search.set_attr(trial.number, _STOPPED.format(trial_run.seed_index), False)

    def stopped_trials(self) -> list[int]:
        """The trials that a person stopped."""
        return sorted({trial.number for trial, _ in self._stopped()})

    def is_mine(self, trial_run: TrialRun) -> bool:
        """Whether nobody has taken over what this process took, nor decided what becomes of it."""
        trial = self.search.trials()[trial_run.trial]
        return not trial.state.is_finished() and _holder(trial, trial_run) == self._peers.name

    def prefetch(self) -> None:
        """Have a new trial at hand before a slot is free for it."""
        with self.search.lock():
            while not (new := [each for each in self._free(self._open()) if not each.begun]):
                if self.search.ask() is None:
                    return
        self.composed(new[0].trial_run)

    def is_any_running(self) -> bool:
        """Whether any run is, here or elsewhere: also one whose ranks save and leave because their sweep was killed."""
        trials = self._open()
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
        paused = self._paused()
        return all(each.trial_run.trial in paused for each in self._free(self._open())) and self._leader() is None

    def _next(self) -> TrialRun | None:
        while True:
            free, paused = self._free(self._open()), self._paused()
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
        its end in any case."""
        asha = self.plan.asha
        if asha is None or self.search.completed():
            return None
        paused = self._paused()
        waiting = {
            each.trial_run.trial: each.rung_state for each in self._free(self._open()) if each.trial_run.trial in paused
        }
        leader = asha.best_paused(waiting)
        return None if leader is None else TrialRun(leader, 0)

    def _promote(self, number: int) -> None:
        asha, rung_state = self.plan.asha, self.rung_state(number)
        if asha is not None and (reached := asha.reached(rung_state)) > rung_state.promoted:
            self.search.set_attr(number, PROMOTED, reached)

    def _free(self, trials: "Sequence[FrozenTrial]") -> "list[_Free]":
        """The runs of open trials that nobody trains, that have no score yet and that nobody stopped, in order."""
        at_work = self._at_work(trials)
        return [
            _Free(trial_run, begun=_holder(trial, trial_run) is not None, rung_state=_rung_state(trial))
            for trial in trials
            for trial_run in self.plan.trial_runs(trial.number)
            if _SCORE.format(trial_run.seed_index) not in trial.user_attrs
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

    def _open(self) -> "list[FrozenTrial]":
        """The trials whose end is open. Of those that are the same run the first is trained, and shares its end."""
        first_with: dict[str, FrozenTrial] = {}
        found = []
        for trial in self.search.trials():
            known = self._digest(trial) if self.search.is_drawn(trial) else None
            if known is None:
                continue
            first = first_with.setdefault(known, trial)
            if trial.state.is_finished() or self._had_ended(trial):
                continue
            if first is trial:
                found.append(trial)
            elif first.state.is_finished():
                self.search.share(first, trial.number)
        return found

    def _at_work(self, trials: "Iterable[FrozenTrial]") -> set[str]:
        """Of the processes that took runs of these trials last, those that live."""
        names = {_holder(trial, trial_run) for trial in trials for trial_run in self.plan.trial_runs(trial.number)}
        return {name for name in names if name and self._peers.lives(name)}

    def _taken(self, trial: "FrozenTrial", trial_run: TrialRun, at_work: set[str]) -> bool:
        holder = _holder(trial, trial_run)
        return trial_run in self._mine if holder == self._peers.name else holder in at_work

    def _is_alive(self, trial_run: TrialRun) -> bool:
        """Whether ranks hold it, as those whose sweep was killed do until they have saved."""
        run = self.plan.run(trial_run)
        return run.exists() and self._peers.looks.live(run) is not None

    # What they are

    def words(self, trial_run: TrialRun) -> list[str]:
        threads = self.search.attr(trial_run.trial, THREADS, self.plan.threads)
        return self.plan.words(trial_run, self.search.words(trial_run.trial), threads)

    def composed(self, trial_run: TrialRun) -> "Composed":
        if trial_run not in self._made:
            self._made[trial_run] = self.plan.compose(self.words(trial_run))
        return self._made[trial_run]

    def _digest(self, trial: "FrozenTrial") -> str | None:
        """None of a trial whose point is none that could be trained; it has failed."""
        known: str | None = trial.user_attrs.get(DIGEST)
        if trial.state.is_finished() or {DIGEST, BATCH, EVERY} <= trial.user_attrs.keys():
            return known
        if THREADS not in trial.user_attrs:
            self.search.set_attr(trial.number, THREADS, self.plan.threads)  # wherever it goes on, it has as many
        try:
            config = self.composed(TrialRun(trial.number, 0)).config
        except ConfigError as error:
            self.search.fail(trial.number, str(error), out_of_memory=False)
            return None
        found = digest(config)
        self.search.set_attr(trial.number, BATCH, config.train.global_batch)
        self.search.set_attr(trial.number, EVERY, config.eval.every)
        self.search.set_attr(trial.number, DIGEST, found)
        return found

    def _was_trained(self, trial_run: TrialRun) -> bool:
        """Whether its folder holds the finished run. Raises ConfigError where that is the run of another config."""
        run = self.plan.run(trial_run)
        if not (run / names.SUMMARY).exists():
            return False
        noted = self._digest(self.search.trials()[trial_run.trial]) if trial_run.seed_index == 0 else None
        if noted is not None and is_of(run, [noted]):
            return True
        config = self.composed(trial_run).config
        known = [digest(config), *former_digests(config)]
        if is_of(run, known) or (self.plan.open and is_elsewhere(run, config, self.plan.open)):
            return True
        raise ConfigError(
            f"{run} holds a finished run of another config than trial {trial_run.trial}, whose result it is not. Type "
            f"run.name=… for a sweep of its own, or move {run} away"
        )

    # What becomes of them

    def record_score(self, trial_run: TrialRun) -> None:
        """A run was trained to its end; its trial has, too, where this was the last one."""
        summary = read_json(self.plan.run(trial_run) / names.SUMMARY)
        evaluation = summary.get("eval") if isinstance(summary, dict) else None
        score = number(evaluation.get(self.plan.metric)) if isinstance(evaluation, dict) else None
        if score is None:
            self.search.fail(
                trial_run.trial, f"its last evaluation has no finite {self.plan.metric}", out_of_memory=False
            )
            return
        self.search.set_attr(trial_run.trial, _SCORE.format(trial_run.seed_index), score)
        self._had_ended(self.search.trials()[trial_run.trial])

    def _had_ended(self, trial: "FrozenTrial") -> bool:
        """Whether what is on record of an open trial is its end, which is told then: who noted it may have been killed
        before."""
        names = [_SCORE.format(each.seed_index) for each in self.plan.trial_runs(trial.number)]
        if all(name in trial.user_attrs for name in names):
            self.search.complete(trial.number, [trial.user_attrs[name] for name in names])
            return True
        return self.search.had_failed(trial)

    def prune_paused(self) -> None:
        """Nothing is under way: those that wait at a rung have waited in vain, unless one that was stopped is to come."""
        if self._stopped():
            return
        paused = self._paused()
        for trial in self._open():
            if trial.number in paused:
                self.search.prune(trial.number)
        self._open()  # those that are the same runs share it

    def states(self) -> dict[int, str]:
        """Of each trial whose end is open: running, stopped (by a person), waiting (at a rung), or queued."""
        undecided = [trial for trial in self.search.trials() if not trial.state.is_finished()]
        at_work, paused, stopped = self._at_work(undecided), self._paused(), self.stopped_trials()

        def state(trial: "FrozenTrial") -> str:
            if any(self._taken(trial, trial_run, at_work) for trial_run in self.plan.trial_runs(trial.number)):
                return "running"
            if trial.number in stopped:
                return "stopped"
            return "waiting" if trial.number in paused else "queued"

        return {trial.number: state(trial) for trial in undecided}

    # Rungs

    def rung_state(self, trial: int) -> RungState:
        return _rung_state(self.search.trials()[trial])

    def _paused(self) -> set[int]:
        """The trials that came to a rung which they are not good enough for, so far; those that ended among them."""
        if self.plan.asha is None:
            return set()
        everyone = {trial.number: _rung_state(trial) for trial in self.search.trials() if EVERY in trial.user_attrs}
        return everyone.keys() - self.plan.asha.promotable(everyone)


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


def _rung_state(trial: "FrozenTrial") -> RungState:
    noted = trial.user_attrs
    return RungState(noted.get(BATCH, 1), noted.get(EVERY) or 1, trial.intermediate_values, noted.get(PROMOTED, 0))
