"""What one process does for a sweep: whichever of its slots is free gets a run at once, and every run gets an end."""

import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.common.files import write_json
from phalanx.config.schema import Mode
from phalanx.exit.cause_file import VARIABLE
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say
from phalanx.exit.signals import UNTIL
from phalanx.run_folder import leftovers, liveness, names
from phalanx.run_folder.jsonl import Evaluations, number, read_events, whole
from phalanx.run_folder.stop_file import StopFile

from ..common.show import show
from ..host.held_signals import HeldSignals
from ..local import exit_cause
from ..search.optuna_study import ENERGY_J, RANK_S, STEPS
from ..search.storage_retry import StorageUnavailable
from ..state.sweep_peers import SweepPeers
from .energy import EnergyMeter
from .shutdown import NO_ROOM, Shutdown, unwritable
from .trial import TrialRun
from .trial_queue import TrialQueue
from .workers import ForkServer, ForkServerDied, RankGroup, Slot

_LOOK_S = 0.02
_SHOWN_S = 0.5
_ASK_S = 1.0  # between two questions for a run where there was none
_KILLS = "kills_{}"  # attribute of a trial, by the place of the run's seed
_TRIES = 3  # of a run whose ranks are killed, and of a process to fork from


@dataclass
class _Attempt:
    """A start of a run."""

    trial_run: TrialRun
    run: Path
    slot: Slot
    group: RankGroup
    evaluations: Evaluations
    causes: Path
    until: int | None  # the step that it is to go to
    goes_on: bool  # with what an earlier start left
    events_bytes: int  # that an earlier start wrote down
    began: float = field(default_factory=time.monotonic)
    pruned: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its ranks only say goodbye, as W&B does for seconds, in a slot that they leave free: a GPU they hold."""
        return not self.slot.gpus and not self.group.codes and (self.run / names.SUMMARY).exists()


class Scheduler:
    """Of the slots of one process."""

    def __init__(
        self,
        queue: TrialQueue,
        peers: SweepPeers,
        slots: Sequence[Slot],
        fork_server: ForkServer,
        signals: HeldSignals,
        energy: EnergyMeter,
        changed: Callable[["Scheduler"], None],
        grace_s: float,
    ) -> None:
        """`fork_server` is closed when the sweep ends; `peers` tells that this process is to leave, as `signals` do.

        `changed` is called when a run ends, and now and then. Runs that are told to leave have `grace_s` seconds for it.
        """
        self.plan = queue.plan
        self.search = queue.search
        self.queue = queue
        self.peers = peers
        self.slots = slots
        self._running: dict[Slot, _Attempt] = {}
        self._fork_server = fork_server
        self._signals = signals
        self._energy = energy
        self._changed = changed
        self._grace_s = grace_s
        self._lingering: list[RankGroup] = []  # that have trained to the end, and say goodbye
        self._failed_before = len(self.search.failed())
        self._shutdown: Shutdown | None = None
        self.trouble: ConfigError | None = None
        self.storage_lost = False  # nothing more can be asked or told
        self._deaths = 0  # of the fork server, since a trial ended
        self.unsaved: list[int] = []  # trials that were ended by force
        self._shown = time.monotonic()
        self._asked = -_ASK_S
        self._looked_ahead = False
        self._nothing_left = False

    def run(self) -> ExitCode:
        """Until nothing is left to do here, or told to leave. Raises ConfigError when the sweep cannot go on."""
        with tempfile.TemporaryDirectory(prefix=leftovers.own()) as scratch:
            self._scratch = Path(scratch)
            try:
                while self._goes_on():
                    try:
                        self._turn()
                    except ForkServerDied:
                        self._replace_fork_server()
                    except OSError as error:
                        if error.errno not in NO_ROOM:
                            raise
                        self._give_up(unwritable(self.plan.folder, error), ExitCode.NO_ROOM)
                    except ConfigError as error:
                        self.storage_lost |= isinstance(error, StorageUnavailable)
                        self._give_up(error, ExitCode.CONFIG)
            finally:
                self._fork_server.close()  # what still runs saves and leaves
        return self._code()

    def _code(self) -> ExitCode:
        if self.trouble is not None:
            say(f"error: {self.trouble}")
        if self.storage_lost:
            return ExitCode.CONFIG
        if self._shutdown is not None and (self.trouble is not None or not self.search.all_failed()):
            return self._shutdown.why
        if self.queue.stopped_trials():
            return ExitCode.STOPPED
        return ExitCode.FINISHED if self.search.completed() or self.peers.others() else ExitCode.BUG

    def _goes_on(self) -> bool:
        leaves = self._shutdown is not None or self._nothing_left
        return bool(self._running or self._lingering) or not leaves

    def _turn(self) -> None:
        if self._shutdown is None:
            self._fill()
        self._hear()
        self._hurry()
        settled = False
        for attempt in list(self._running.values()):
            self._fork_server.update(attempt.group)
            self._follow(attempt)
            if attempt.group.ended or attempt.is_over:
                del self._running[attempt.slot]
                self._lingering += [] if attempt.group.ended else [attempt.group]
                self._settle(attempt)
                settled = True
        for group in self._lingering:
            self._fork_server.update(group)
        self._lingering = [group for group in self._lingering if not group.ended]
        if settled or time.monotonic() > self._shown + _SHOWN_S:
            self._shown = time.monotonic()
            self._changed(self)
            if self._shutdown is None:
                self._look_up()

    def _look_up(self) -> None:
        """What others did may be a reason to leave."""
        failed = len(self.search.failed())
        if self.peers.told_to_leave():
            self._leave(ExitCode.STOPPED)
        elif failed > max(self.plan.config.max_failures, self._failed_before):
            self._leave(ExitCode.GAVE_UP)

    # What a free slot gets

    def _fill(self) -> None:
        free = [slot for slot in self.slots if slot not in self._running]
        if not free and not self._looked_ahead:
            self.queue.prefetch()
            self._looked_ahead = True
        if not free or time.monotonic() < self._asked + _ASK_S:
            return
        for slot in free:
            if (trial_run := self.queue.take()) is None:
                self._asked = time.monotonic()
                self._nothing_left = not self._running and self._is_over()
                return
            try:
                self._running[slot] = self._start(slot, trial_run)
            except BaseException:
                self.queue.release(trial_run)
                raise
            self._looked_ahead = False

    def _is_over(self) -> bool:
        """Whether there will be nothing more to do here. Decides what nobody else is left to decide."""
        with self.search.lock():
            if self.queue.is_over():
                self.queue.prune_paused()
                return True
        # Only at a rung can one run make another possible. What a process that is ended gives back, it takes up again.
        return self.plan.asha is None and self.peers.others()

    def _start(self, slot: Slot, trial_run: TrialRun) -> _Attempt:
        run = self.plan.run(trial_run)
        causes, goes_on = Path(tempfile.mkdtemp(dir=self._scratch)), run.exists()
        environ, until = {VARIABLE: exit_cause.files(causes)[VARIABLE]}, self._until(trial_run)
        if until is not None:
            environ[UNTIL] = str(until)
        output = self.plan.folder / "output" / f"{run.name}.txt"
        words, composed, before = self.queue.words(trial_run), self.queue.composed(trial_run), _events_bytes(run)
        group = self._fork_server.start(slot, self.plan.config.ranks, words, composed, output, environ)
        self._energy.begin(slot)
        return _Attempt(trial_run, run, slot, group, Evaluations(run), causes, until, goes_on, before)

    def _until(self, trial_run: TrialRun) -> int | None:
        """The step of the rung that its trial comes to next."""
        asha = self.plan.asha
        return None if asha is None else asha.next_step(self.queue.rung_state(trial_run.trial))

    # What is heard meanwhile

    def _hear(self) -> None:
        heard = self._signals.next(_LOOK_S)
        if heard is None:
            return
        if self._signals.interrupts > 1:
            self._end_all()
        self._leave(ExitCode.STOPPED if self._signals.interrupts else ExitCode.PREEMPTED)

    def _leave(self, why: ExitCode) -> None:
        """All save and leave; the same command goes on."""
        if self._shutdown is None:
            self._shutdown = Shutdown(why, self._grace_s)
            if self._running:
                show(f"saving {self._named()} and leaving; Ctrl-C again ends at once")
        for attempt in self._running.values():
            attempt.group.send(signal.SIGTERM)

    def _give_up(self, trouble: ConfigError, code: ExitCode) -> None:
        """All save and leave; somebody has to mend something first."""
        if self.trouble is None:
            self.trouble = trouble
            self._leave(code)

    def _hurry(self) -> None:
        """Whoever leaves is waited for only so long, and by name."""
        if self._shutdown is None or not self._groups():
            return
        if self._shutdown.is_over():
            self._end_all()
        elif self._shutdown.is_to_be_told():
            show(f"waiting for {self._named()} to save, {self._shutdown}")

    def _named(self) -> str:
        """The runs under way, with their processes."""
        named = [f"{each.run.name} (process {each.group.pids[0]})" for each in self._running.values()]
        return ", ".join(named) or "the goodbyes of runs that have ended"

    def _end_all(self) -> None:
        self.unsaved += [
            each.trial_run.trial for each in self._running.values() if each.trial_run.trial not in self.unsaved
        ]
        for group in self._groups():
            group.send(signal.SIGKILL)

    def _groups(self) -> list[RankGroup]:
        return [*(attempt.group for attempt in self._running.values()), *self._lingering]

    def _replace_fork_server(self) -> None:
        """Its ranks were told to save and leave when it died, and nobody hears how they end."""
        self._deaths += 1
        if self._deaths > _TRIES:
            raise RuntimeError(f"the process that ranks are forked from died {self._deaths} times, and no trial ended")
        for attempt in self._running.values():
            self._energy.end(attempt.slot)
            self.queue.release(attempt.trial_run)
        for group in self._groups():
            group.port.close()
        self._running.clear()
        self._lingering.clear()
        self._fork_server.close()
        if self._shutdown is None:
            self._fork_server = ForkServer(self._signals)

    def _follow(self, attempt: _Attempt) -> None:
        """Report evaluations, and ask a trial to leave that does not deserve its slot."""
        if self.trouble is not None:
            return  # the next start reports them
        trial = attempt.trial_run.trial
        if _events_bytes(attempt.run) > attempt.events_bytes:  # its ranks have their GPUs
            self._fork_server.prepare(attempt.slot, self.plan.config.ranks)
        for entry in attempt.evaluations.new():
            if self.plan.metric not in entry:
                names = ", ".join(name for name in entry if name not in ("step", "split", "time"))
                raise ConfigError(
                    f"sweep.metric={self.plan.metric} is no metric of the task, which has {names}. Type one of them"
                )
            with self.search.lock():
                if entry["step"] <= max(self.queue.rung_state(trial).values, default=0):
                    continue
                if not self.queue.is_mine(attempt.trial_run):
                    return
                ends = self.search.report(trial, entry["step"], self._number(entry[self.plan.metric]))
                steps = self._steps(attempt)
                attempt.pruned |= ends and entry["step"] < steps
        if attempt.pruned:
            _ask_to_leave(attempt.run)

    # How runs end

    def _settle(self, attempt: _Attempt) -> None:
        self._deaths = 0
        used_j = self._energy.end(attempt.slot)
        if self.storage_lost:
            return  # what this process held is free when it has ended
        with self.search.lock():
            if self.queue.is_mine(attempt.trial_run):
                self._count(attempt, used_j)
                self._decide(attempt)
            if self.search.trials()[attempt.trial_run.trial].state.is_finished():
                self._let_go(attempt.trial_run.trial)
            self.queue.release(attempt.trial_run)
        self._asked = -_ASK_S

    def _let_go(self, trial: int) -> None:
        """A trial that has its end needs no run with another seed."""
        for attempt in self._running.values():
            if attempt.trial_run.trial == trial:
                attempt.group.send(signal.SIGTERM)

    def _count(self, attempt: _Attempt, used_j: float | None) -> None:
        """Add what this start cost to what its trial has cost so far."""
        spent_s = (time.monotonic() - attempt.began) * self.plan.config.ranks
        for name, more in ((RANK_S, spent_s), (ENERGY_J, used_j)):
            if more is not None:
                before: float = self.search.attr(attempt.trial_run.trial, name, 0.0)
                self.search.set_attr(attempt.trial_run.trial, name, before + more)

    def _decide(self, attempt: _Attempt) -> None:
        trial = attempt.trial_run.trial
        ended = _cause(attempt)
        if ended.code is ExitCode.FINISHED:
            self.queue.record_score(attempt.trial_run)
        elif ended.code is ExitCode.STOPPED and attempt.pruned:
            self.search.prune(trial)
        elif ended.code is ExitCode.PREEMPTED or self._shutdown is not None:
            pass  # its end stays open
        elif ended.code is ExitCode.STOPPED:
            if not self._came_to_its_rung(attempt):
                self.queue.mark_stopped(attempt.trial_run)
        elif ended.code is ExitCode.CONFIG and attempt.goes_on:
            # What it began with is no longer what is here.
            self._give_up(ConfigError(f"trial {trial}: {ended.message}"), ExitCode.CONFIG)
        elif ended.code is ExitCode.NO_ROOM:
            self._give_up(ConfigError(f"trial {trial}: {ended.message}"), ExitCode.NO_ROOM)
        elif any(code < 0 for code in attempt.group.codes.values()) and self._kills(attempt.trial_run) < _TRIES:
            pass
        else:
            self.search.fail(trial, ended.message, ended.code is ExitCode.OUT_OF_MEMORY)

    def _came_to_its_rung(self, attempt: _Attempt) -> bool:
        """Whether it left because it was to go no further, and was evaluated there."""
        return attempt.until is not None and attempt.until in self.queue.rung_state(attempt.trial_run.trial).values

    def _kills(self, trial_run: TrialRun) -> int:
        """How often its ranks were killed by now, this time included."""
        name = _KILLS.format(trial_run.seed_index)
        kills: int = self.search.attr(trial_run.trial, name, 0) + 1
        self.search.set_attr(trial_run.trial, name, kills)
        return kills

    def _steps(self, attempt: _Attempt) -> int:
        """Of the whole run, as it said itself when it began."""
        known: int = self.search.attr(attempt.trial_run.trial, STEPS, 0)
        if not known:
            said = [whole(event.get("steps")) for event in read_events(attempt.run)]
            known = next(filter(None, said), 0)
            if known:
                self.search.set_attr(attempt.trial_run.trial, STEPS, known)
        return known

    def _number(self, value: object) -> float:
        """A value to compare by: one that is not finite is the worst there is."""
        found = number(value)
        worst = float("inf") if self.plan.mode is Mode.min else -float("inf")
        return worst if found is None else found


def _events_bytes(run: Path) -> int:
    with suppress(FileNotFoundError):
        return (run / names.EVENTS).stat().st_size
    return 0


def _ask_to_leave(run: Path) -> None:
    """Once for each start, which may be none that listens yet."""
    holder = liveness.live(run)
    if holder is not None and (stop := StopFile(run, holder.incarnation)).request() is None:
        stop.ask()


def _cause(attempt: _Attempt) -> exit_cause.Cause:
    """Why a start ended. The ranks' exit codes stand where a launcher would look for them."""
    codes = [attempt.group.codes.get(pid, 0) for pid in attempt.group.pids]
    with suppress(OSError):
        write_json(
            Path(exit_cause.files(attempt.causes)[exit_cause.RANKS]),
            [[rank, code, 0] for rank, code in enumerate(codes) if code],
        )
    return exit_cause.read(attempt.causes, 1 if any(codes) else 0)
