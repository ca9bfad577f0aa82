"""Watches the processes of a sweep on this machine: slots, ranks, signals and exits. It decides nothing about trials."""

import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from phalanx.exit.cause_file import VARIABLE
from phalanx.exit.codes import ExitCode
from phalanx.exit.signals import UNTIL
from phalanx.run_folder import leftovers
from phalanx.run_folder.jsonl import Evaluations

from ..common.show import show
from ..host.held_signals import HeldSignals
from ..local import exit_cause
from .attempt import Attempt, StartRequest, events_bytes
from .energy import EnergyMeter
from .shutdown import Shutdown
from .trial import SweepPlan
from .workers import ForkServer, RankGroup, Slot

_SIGNAL_WAIT_S = 0.02
_FORK_SERVER_STARTS = 3  # again, without a run that ended in between


class ProcessWatcher:
    """The slots of one process and what runs in them."""

    def __init__(
        self,
        plan: SweepPlan,
        slots: Sequence[Slot],
        fork_server: ForkServer,
        signals: HeldSignals,
        energy: EnergyMeter,
        grace_s: float,
    ) -> None:
        """`fork_server` is closed on exit of `opened`. Runs that are told to leave have `grace_s` seconds for it."""
        self.slots = slots
        self.running: dict[Slot, Attempt] = {}
        self.unsaved: list[int] = []  # trials that were ended by SIGKILL
        self.shutdown: Shutdown | None = None  # once all were told to leave
        self._plan = plan
        self._fork_server = fork_server
        self._signals = signals
        self._energy = energy
        self._grace_s = grace_s
        self._closing: list[RankGroup] = []  # runs that have finished, whose ranks have not exited
        self._deaths = 0  # of the fork server, since a run ended

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Starts and ends of runs are watched within."""
        with tempfile.TemporaryDirectory(prefix=leftovers.process_prefix()) as scratch:
            self._scratch = Path(scratch)
            try:
                yield
            finally:
                self._fork_server.close()  # what still runs saves and leaves

    @property
    def is_busy(self) -> bool:
        """Whether any rank has not exited."""
        return bool(self.running or self._closing)

    def free_slots(self) -> list[Slot]:
        return [slot for slot in self.slots if slot not in self.running]

    def start(self, slot: Slot, asked: StartRequest) -> None:
        """Start a run in a free slot. Raises ForkServerDied."""
        causes, resumes = Path(tempfile.mkdtemp(dir=self._scratch)), asked.run.exists()
        environ = {VARIABLE: exit_cause.file_variables(causes)[VARIABLE]}
        if asked.until is not None:
            environ[UNTIL] = str(asked.until)
        output, before = self._plan.output(asked.trial_run), events_bytes(asked.run)
        ranks = self._plan.config.ranks
        group = self._fork_server.start(slot, ranks, asked.words, asked.composed, output, environ)
        self._energy.begin(slot)
        evaluations = Evaluations(asked.run, self._plan.split)
        self.running[slot] = Attempt(
            asked.trial_run, asked.run, slot, group, evaluations, causes, asked.until, resumes, before
        )

    def update(self) -> list[Attempt]:
        """What runs, as its ranks are now. Raises ForkServerDied."""
        for group in self._groups():
            self._fork_server.update(group)
        self._closing = [group for group in self._closing if not group.ended]
        for attempt in self.running.values():
            if self.shutdown is None and attempt.has_begun:
                self._fork_server.prepare(attempt.slot, self._plan.config.ranks)
        return list(self.running.values())

    def take_ended(self) -> Iterator[Attempt]:
        """Free the slots of runs that have ended, one after the other."""
        for attempt in list(self.running.values()):
            if not attempt.group.ended and not attempt.has_finished:
                continue
            del self.running[attempt.slot]
            if not attempt.group.ended:
                self._closing.append(attempt.group)
            attempt.used_j = self._energy.end(attempt.slot)
            self._deaths = 0
            yield attempt

    def terminate(self, trial: int) -> None:
        """Tell the runs of a trial to save and leave."""
        for attempt in self.running.values():
            if attempt.trial_run.trial == trial:
                attempt.group.send(signal.SIGTERM)

    def replace_fork_server(self) -> list[Attempt]:
        """Start another one, unless all leave; returns the attempts that ended with it. Its ranks were told to save and
        leave when it died, and nobody hears how they end. Raises RuntimeError where it dies again and again."""
        self._deaths += 1
        if self._deaths > _FORK_SERVER_STARTS:
            raise RuntimeError(f"the process that ranks are forked from died {self._deaths} times, and no trial ended")
        lost = list(self.running.values())
        for attempt in lost:
            self._energy.end(attempt.slot)
        for group in self._groups():
            group.port.close()
        self.running.clear()
        self._closing.clear()
        self._fork_server.close()
        if self.shutdown is None:
            self._fork_server = ForkServer(self._signals)
        return lost

    # Leaving

    def wait_for_signal(self) -> ExitCode | None:
        """The code to leave with where a signal asks for that; a second Ctrl-C kills all ranks."""
        if self._signals.next(_SIGNAL_WAIT_S) is None:
            return None
        if self._signals.interrupts > 1:
            self._kill_all()
        return ExitCode.STOPPED if self._signals.interrupts else ExitCode.PREEMPTED

    def leave(self, why: ExitCode) -> None:
        """Tell all ranks to save and leave; the same command continues."""
        if self.shutdown is None:
            self.shutdown = Shutdown(why, self._grace_s)
            if self.running:
                show(f"saving {self._named()} and leaving; Ctrl-C again ends at once")
        for attempt in self.running.values():
            attempt.group.send(signal.SIGTERM)

    def enforce_grace(self) -> None:
        """Kill who leaves when the grace is over, and name who is waited for until then."""
        if self.shutdown is None or not self.is_busy:
            return
        if self.shutdown.is_over():
            self._kill_all()
        elif self.shutdown.is_message_due():
            show(f"waiting for {self._named()} to save, {self.shutdown}")

    def _kill_all(self) -> None:
        for attempt in self.running.values():
            if attempt.trial_run.trial not in self.unsaved:
                self.unsaved.append(attempt.trial_run.trial)
        for group in self._groups():
            group.send(signal.SIGKILL)

    def _groups(self) -> list[RankGroup]:
        return [*(attempt.group for attempt in self.running.values()), *self._closing]

    def _named(self) -> str:
        """What runs, with its processes."""
        named = [f"{each.run.name} (process {each.group.pids[0]})" for each in self.running.values()]
        return ", ".join(named) or "runs that have ended"
