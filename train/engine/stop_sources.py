"""What may stop a run before its end: signals, the stop file, the loss of the lease, the time limit."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phalanx.config.schema import Config
from phalanx.config.time_limit import seconds_of
from phalanx.exit.codes import ExitCode
from phalanx.exit.signals import Signals, StopRequest, until_step
from phalanx.run_folder import lease
from phalanx.run_folder.stop_file import StopFile

from ..checkpoint.open_run import OpenRun
from ..checkpoint.progress import Progress
from ..distributed.stop_agreement import StopAgreement
from ..distributed.world import World
from ..stopping.time_limit import TimeLimit
from ..stopping.time_spent import TimeSpent


@contextmanager
def stopping(signals: Signals, opened: OpenRun, world: World, limit: TimeLimit | None) -> Iterator[StopAgreement]:
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


def time_spent(config: Config, opened: OpenRun, world: World, started: float) -> TimeSpent | None:
    """Counts what all starts took, on rank 0 where there is a limit."""
    if config.train.time_limit is None or not world.is_rank_zero:
        return None
    return TimeSpent(opened.path, opened.incarnation, time.monotonic() - started, time.monotonic)


def time_limit(config: Config, progress: Progress, spent: TimeSpent | None) -> TimeLimit | None:
    """`progress` has what earlier starts spent, less what restarts threw away, and what this one did up to here."""
    typed = config.train.time_limit
    if typed is None or spent is None:
        return None
    spent.at_least(sum(progress.seconds.values()))
    return TimeLimit(typed, seconds_of(typed), spent, progress)


def _lease_lost(opened: OpenRun) -> StopRequest | None:
    message = lease.takeover_message(opened.path, opened.incarnation)
    return None if message is None else StopRequest(ExitCode.CONFIG, message)
