"""Handle signals of a rank (SIGTERM, SIGINT, SIGHUP, SIGUSR2) and turn them into stop requests."""

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from .codes import ExitCode
from .messages import end

UNTIL = "PHALANX_UNTIL_STEP"
CODES: Mapping[int, ExitCode] = {  # exit code of a run that was stopped by the signal
    signal.SIGTERM: ExitCode.PREEMPTED,
    signal.SIGUSR2: ExitCode.PREEMPTED,
    signal.SIGHUP: ExitCode.PREEMPTED,
    signal.SIGINT: ExitCode.STOPPED,
}
_NO_SIGNAL = b"\0"
TWICE_S = 1.0  # within it a second SIGINT is the same Ctrl-C, sent by terminal and launcher both
_LEAVE_S = 2.0  # timeout of the main thread after the second interrupt


def grace_s_of(environ: Mapping[str, str]) -> float:
    """Seconds between the launcher's SIGTERM and its SIGKILL; torchrun's default of 30 if the variable is not set."""
    try:
        return float(environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    except (KeyError, ValueError):
        return 30.0


def until_step(environ: Mapping[str, str]) -> int | None:
    """The step at which the launcher wants the run to save and exit; None if it set none."""
    found = environ.get(UNTIL, "")
    return int(found) if found.isdecimal() else None


@dataclass(frozen=True)
class StopRequest:
    """A request to save and exit: exit code, reason, and when it came (`received`, time.time())."""

    code: ExitCode
    why: str
    received: float = field(default_factory=time.time)


class Signals:
    """Handle signals from `open` to `close`.

    Before `keep` there is nothing to save: a signal calls `leave` (an attribute that may be replaced) in a thread, and
    SIGINT raises KeyboardInterrupt. After `keep` signals are queued for `request`: all ranks have to agree on a stop, and
    a SIGTERM that follows a peer's death is no request. A second SIGINT ends the process.

    Python runs its handlers only when the main thread returns from C code, such as a collective. So signals are also
    read from the wakeup file descriptor (a pipe).
    """

    def __init__(self, rank: int, leave: Callable[[str], None]) -> None:
        self.leave = leave
        self._rank = rank
        self._interrupted: float | None = None  # when the main thread was first
        self._read_of_it: float | None = None  # when the pipe first told

    def open(self) -> None:
        """Only the main thread may call it."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._early = threading.Thread(target=self._leave_early, name="signals", daemon=True)
        self._early.start()
        for number in CODES.keys() - {signal.SIGINT}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                signal.signal(number, _only_noted)

    def keep(self) -> None:
        """From now on queue signals for `request`. Only the main thread may call it."""
        self._end_early()
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)

    def close(self) -> None:
        """Only the main thread may call it, after the thread that calls `request` has ended.

        The signals stay ignored: all is saved, and a signal to one rank usually reaches the others a moment later.
        """
        self._end_early()
        for number in CODES:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def request(self) -> StopRequest | None:
        """The stop request of the first signal since the last call, or None. Only one thread may call it."""
        try:
            numbers = [number for number in os.read(self._read, 64) if number in CODES]
        except BlockingIOError:
            return None
        now = time.monotonic()
        if signal.SIGINT in numbers and _is_second(self._read_of_it, now):
            # The main thread raises KeyboardInterrupt, unless it is stuck.
            late = threading.Timer(_LEAVE_S, end, [ExitCode.STOPPED])
            late.daemon = True
            late.start()
        if signal.SIGINT in numbers:
            self._read_of_it = self._read_of_it or now
        if not numbers:
            return None
        number = signal.Signals(numbers[0])
        return StopRequest(CODES[number], self._words(number))

    def _end_early(self) -> None:
        os.write(self._write, _NO_SIGNAL)
        self._early.join()

    def _leave_early(self) -> None:
        numbers: Sequence[int] = ()
        while _NO_SIGNAL[0] not in numbers:
            select.select([self._read], [], [])
            numbers = os.read(self._read, 64)
            for number in numbers:
                if CODES.get(number) is ExitCode.PREEMPTED:
                    self.leave(f"{self._words(signal.Signals(number))} before training began")

    def _words(self, number: signal.Signals) -> str:
        return f"{number.name} reached rank {self._rank} on {socket.gethostname()}"

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if _is_second(self._interrupted, now):
            raise KeyboardInterrupt
        self._interrupted = self._interrupted or now


def _is_second(first: float | None, now: float) -> bool:
    return first is not None and now - first >= TWICE_S


def _only_noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the signal's number is in the wakeup pipe."""
