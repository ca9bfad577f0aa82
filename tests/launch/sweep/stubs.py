"""Stand-ins for ranks, fork server and signals, and a scheduler over them: no process is started."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from phalanx.common.files import write_json
from phalanx.exit.cause_file import VARIABLE
from phalanx.launch.host.held_signals import HeldSignals
from phalanx.launch.sweep.energy import EnergyMeter
from phalanx.launch.sweep.process_watcher import ProcessWatcher
from phalanx.launch.sweep.scheduler import Scheduler
from phalanx.launch.sweep.trial import TrialRun
from phalanx.launch.sweep.trial_queue import TrialQueue
from phalanx.launch.sweep.workers import ForkServer, Slot
from tests.launch.sweep.queues import settings, start, train


class StubRanks:
    """Ranks of which a test says how they end."""

    def __init__(self, environ: Any, run: str) -> None:
        self.pids, self.codes = (4_000_000,), dict[int, int]()
        self.cause, self.run, self.heard = Path(environ[VARIABLE]), run, list[signal.Signals]()

    @property
    def ended(self) -> bool:
        return bool(self.codes)

    def send(self, heard: signal.Signals) -> None:
        self.heard.append(heard)

    def end(self, code: int, message: str = "") -> None:
        self.codes = {self.pids[0]: code}
        if code > 0:
            write_json(self.cause, {"code": code, "rank": 0, "host": "here", "message": message})


class StubForkServer:
    """In the place of the fork server. `act` is called at each look at a group."""

    def __init__(self, act: Callable[[StubRanks], None]) -> None:
        self.act = act
        self.groups: list[StubRanks] = []

    def start(self, slot: Slot, ranks: int, words: Any, composed: Any, output: Any, environ: Any) -> StubRanks:
        self.groups.append(
            StubRanks(environ, next(word for word in words if word.startswith("run.name="))[9:].strip("'"))
        )
        return self.groups[-1]

    def update(self, group: StubRanks) -> None:
        if not group.ended:
            self.act(group)

    def prepare(self, slot: Slot, ranks: int) -> None:
        pass

    def close(self) -> None:
        pass


class StubSignals:
    """In the place of held signals: one signal at each of these calls."""

    def __init__(self, *signals: signal.Signals | None) -> None:
        self.signals = list(signals)
        self.interrupts = 0

    def next(self, timeout_s: float) -> signal.Signals | None:
        found = self.signals.pop(0) if self.signals else None
        self.interrupts += found is signal.SIGINT
        return found


def scheduler_of(
    queue: TrialQueue, slots: Sequence[Slot], ranks: StubForkServer, heard: StubSignals, grace_s: float
) -> Scheduler:
    energy = EnergyMeter(lambda gpu: None, slots)
    fork_server, signals = cast("ForkServer", ranks), cast("HeldSignals", heard)
    watcher = ProcessWatcher(queue.plan, slots, fork_server, signals, energy, grace_s)
    return Scheduler(queue, queue._peers, watcher, lambda scheduler: None)


@contextmanager
def scheduling(
    folder: Path, act: Callable[[StubRanks], None], heard: Sequence[signal.Signals | None] = (), grace_s: float = 60.0
) -> Iterator[tuple[Scheduler, TrialQueue, StubForkServer]]:
    with start(folder, config=settings(trials=2, max_failures=9)) as queue:
        slots, ranks = [Slot(0, (), 1), Slot(1, (), 1)], StubForkServer(act)
        yield (
            scheduler_of(queue, slots, ranks, StubSignals(*heard), grace_s),
            queue,
            ranks,
        )


def finish(queue: TrialQueue, group: StubRanks, loss: float = 1.0) -> None:
    train(queue, TrialRun(int(group.run), 0), loss)
    group.end(0)
