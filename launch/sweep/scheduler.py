"""The scheduler of a sweep in one process: which trial a free slot gets next, and when the sweep is over or given up."""

import time
from collections.abc import Callable, Sequence

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import say

from ..search.storage_retry import StorageUnavailable
from ..state.sweep_peers import SweepPeers
from .attempt import Attempt, StartRequest
from .outcomes import Halt, TrialOutcomes
from .process_watcher import ProcessWatcher
from .shutdown import NO_ROOM, unwritable
from .trial import TrialRun
from .trial_queue import TrialQueue
from .workers import ForkServerDied, Slot

_SHOWN_S = 0.5
_ASK_S = 1.0  # between two questions for a run where there was none


class Scheduler:
    """Takes runs from the queue, has the watcher start them, and has each end decided."""

    def __init__(
        self,
        queue: TrialQueue,
        peers: SweepPeers,
        watcher: ProcessWatcher,
        changed: Callable[["Scheduler"], None],
    ) -> None:
        """`changed` is called when a run ends, and now and then."""
        self.plan = queue.plan
        self.search = queue.search
        self.queue = queue
        self.peers = peers
        self.trouble: ConfigError | None = None
        self.storage_lost = False  # nothing more can be asked or told
        self._watcher = watcher
        self._outcomes = TrialOutcomes(queue)
        self._changed = changed
        self._failed_before = len(self.search.failed())
        self._shown = time.monotonic()
        self._asked = -_ASK_S
        self._has_prefetched = False
        self._nothing_left = False

    @property
    def slots(self) -> Sequence[Slot]:
        return self._watcher.slots

    @property
    def unsaved(self) -> Sequence[int]:
        """The trials that were ended by SIGKILL."""
        return self._watcher.unsaved

    def run(self) -> ExitCode:
        """Until nothing is left to do here, or told to leave. Raises ConfigError when the sweep cannot go on."""
        with self._watcher.opened():
            while self._goes_on():
                try:
                    self._turn()
                except ForkServerDied:
                    for attempt in self._watcher.replace_fork_server():
                        self.queue.release(attempt.trial_run)
                except OSError as error:
                    if error.errno not in NO_ROOM:
                        raise
                    self._give_up(Halt(unwritable(self.plan.folder, error), ExitCode.NO_ROOM))
                except ConfigError as error:
                    self.storage_lost |= isinstance(error, StorageUnavailable)
                    self._give_up(Halt(error, ExitCode.CONFIG))
        return self._code()

    def _code(self) -> ExitCode:
        if self.trouble is not None:
            say(f"error: {self.trouble}")
        if self.storage_lost:
            return ExitCode.CONFIG
        shutdown = self._watcher.shutdown
        if shutdown is not None and (self.trouble is not None or not self.search.all_failed()):
            return shutdown.why
        if self.queue.stopped_trials():
            return ExitCode.STOPPED
        return ExitCode.FINISHED if self.search.completed() or self.peers.others() else ExitCode.BUG

    @property
    def _is_leaving(self) -> bool:
        return self._watcher.shutdown is not None

    def _goes_on(self) -> bool:
        return self._watcher.is_busy or not (self._is_leaving or self._nothing_left)

    def _turn(self) -> None:
        if not self._is_leaving:
            self._fill()
        if (why := self._watcher.wait_for_signal()) is not None:
            self._watcher.leave(why)
        self._watcher.enforce_grace()
        for attempt in self._watcher.update():
            if self.trouble is None:  # else the next start reports them
                self._outcomes.follow(attempt)
        settled = False
        for attempt in self._watcher.take_ended():
            self._settle(attempt)
            settled = True
        if settled or time.monotonic() > self._shown + _SHOWN_S:
            self._shown = time.monotonic()
            self._changed(self)
            if not self._is_leaving:
                self._check_peers()

    def _check_peers(self) -> None:
        """What other processes did may be a reason to leave."""
        failed = len(self.search.failed())
        if self.peers.told_to_leave():
            self._watcher.leave(ExitCode.STOPPED)
        elif failed > max(self.plan.config.max_failures, self._failed_before):
            self._watcher.leave(ExitCode.GAVE_UP)

    def _give_up(self, halt: Halt) -> None:
        """All save and leave; somebody has to mend something first."""
        if self.trouble is None:
            self.trouble = halt.trouble
            self._watcher.leave(halt.code)

    # What a free slot gets

    def _fill(self) -> None:
        free = self._watcher.free_slots()
        if not free and not self._has_prefetched:
            self.queue.prefetch()
            self._has_prefetched = True
        if not free or time.monotonic() < self._asked + _ASK_S:
            return
        for slot in free:
            if (trial_run := self.queue.take()) is None:
                self._asked = time.monotonic()
                self._nothing_left = not self._watcher.running and self._is_over()
                return
            try:
                self._watcher.start(slot, self._request(trial_run))
            except BaseException:
                self.queue.release(trial_run)
                raise
            self._has_prefetched = False

    def _is_over(self) -> bool:
        """Whether there will be nothing more to do here. Decides what nobody else is left to decide."""
        with self.search.lock():
            if self.queue.is_over():
                self.queue.prune_paused()
                return True
        # Only at a rung can one run make another possible. What a process that is ended gives back, it takes up again.
        return self.plan.asha is None and self.peers.others()

    def _request(self, trial_run: TrialRun) -> StartRequest:
        asha, queue = self.plan.asha, self.queue
        until = None if asha is None else asha.next_step(queue.records.rung_state(trial_run.trial))
        return StartRequest(
            trial_run,
            self.plan.run(trial_run),
            queue.records.words(trial_run),
            queue.records.composed(trial_run),
            until,
        )

    # How runs end

    def _settle(self, attempt: Attempt) -> None:
        if self.storage_lost:
            return  # what this process held is free when it has ended
        trial_run = attempt.trial_run
        with self.search.lock():
            if (halt := self._outcomes.settle(attempt, self._is_leaving)) is not None:
                self._give_up(halt)
            if self.search.trials()[trial_run.trial].state.is_finished():
                self._watcher.terminate(trial_run.trial)  # it needs no run with another seed
            self.queue.release(trial_run)
        self._asked = -_ASK_S
