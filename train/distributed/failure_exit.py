"""Exit a rank after a failure: which rank prints the error, the exit code, and a timeout so that no rank waits on."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NoReturn

from phalanx.common.redaction import redact, secrets_of
from phalanx.exit import cause_file
from phalanx.exit.codes import ConfigError, ExitCode, Failure, GaveUp, Hung, NoRoom, ParityMissed, Preempted
from phalanx.exit.messages import end, say
from phalanx.run_folder import rank_logs

from .world import World

_LEAVE_S = 1.7  # timeout of the exit, whatever a store, a sink or a collective does

logger = logging.getLogger(__name__)


class FailureExit:
    """Exit of a rank after a failure. The functions in `afterwards` are called with the first failure, in reverse order,
    once all ranks have received it."""

    def __init__(self, world: World) -> None:
        self.afterwards: list[Callable[[Failure], None]] = []
        self._world = world
        self._lock = threading.Lock()

    def leave(self, error: BaseException) -> NoReturn:
        """The rank that failed first prints the error and exits; the others exit after it.

        Any thread may call it. A second caller blocks until the process ends.
        """
        self._lock.acquire()
        _leave(self._world, error, self.afterwards)


@contextmanager
def exit_on_failure(world: World) -> Iterator[FailureExit]:
    """Close the world on success, or end the process with the exit code of the first failure on any rank."""
    failure_exit = FailureExit(world)
    world.watchdog.ended = failure_exit.leave
    try:
        yield failure_exit
        world.leave()
    except BaseException as error:
        # The launcher signals all ranks as soon as the first has exited.
        for heard in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(heard, signal.SIG_IGN)
        failure_exit.leave(error)


def _leave(world: World, error: BaseException, afterwards: list[Callable[[Failure], None]]) -> NoReturn:
    logger.info("this rank cannot go on", exc_info=error)
    limit = threading.Timer(_LEAVE_S, _leave_after_timeout, [world, afterwards])
    limit.daemon = True
    limit.start()
    failure = world.failure.broadcast(error)
    secrets = secrets_of(os.environ)
    failure = replace(failure, text=redact(failure.text, secrets), message=redact(failure.message, secrets))
    if failure.rank == world.rank:
        words = _words(error, failure)
        say(words)
        logger.info("said %s", words)
        short = failure.said if failure.said in words else words
        late = failure.hang or {"rank": failure.rank, "host": failure.host}
        cause_file.write(failure.code, late["rank"], short, late["host"])
        cause_file.report_to_torchrun(short, world.rank)
        world.failure.release()
        if failure.hang is not None:
            world.watchdog.end(world.failure.silent)
    else:
        logger.info("leaving because %s", failure)
    for act in reversed(afterwards):
        with suppress(Exception):
            act(failure)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    end(failure.code)


def _leave_after_timeout(world: World, afterwards: list[Callable[[Failure], None]]) -> NoReturn:
    """The exit timed out: tell the rest with another timeout of the same length."""
    limit = threading.Timer(_LEAVE_S, end, [ExitCode.HUNG])
    limit.daemon = True
    limit.start()
    failure = world.failure.give_up_on_others()
    if failure.hang is not None and world.failure.silent:
        for act in afterwards:
            with suppress(Exception):
                act(failure)
        world.watchdog.end(world.failure.silent)
    end(failure.code)


def _words(error: BaseException, failure: Failure) -> str:
    if isinstance(error, ConfigError | GaveUp | Hung | NoRoom | ParityMissed):
        return f"error: {failure.text}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues from the newest checkpoint"
    if isinstance(error, Preempted) and failure.code == ExitCode.PREEMPTED:
        return f"{failure.text}; the same command begins again"
    where = f" {failure.where}" if failure.where else ""
    return f"error on rank {failure.rank} on {failure.host}{where}:\n{failure.text}{_more(failure)}"


def _more(failure: Failure) -> str:
    """Where the frames are that were left out, and what a GPU means, or a lack of memory."""
    hint = (
        "\nOut of memory: type a smaller train.micro_batch, which trains the same in smaller pieces, or fewer data.workers"
        if failure.code == ExitCode.OUT_OF_MEMORY
        else ""
    )
    hint += (
        "\nThat is an index out of range in a GPU kernel, such as a label: world.device=cpu shows which, and where"
        if "device-side assert" in failure.message
        else ""
    )
    log = rank_logs.file()
    return hint if log is None or not failure.where else f"{hint}\nEvery frame of it is in {log}"
