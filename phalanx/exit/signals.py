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
CODES: Mapping[int, ExitCode] = {  # of what is told to leave by a signal
    signal.SIGTERM: ExitCode.PREEMPTED,
    signal.SIGUSR2: ExitCode.PREEMPTED,
    signal.SIGHUP: ExitCode.PREEMPTED,
    signal.SIGINT: ExitCode.STOPPED,
}
_NO_SIGNAL = b"\0"
TWICE_S = 1.0  # a terminal and a launcher may both pass on what was typed once
_LEAVE_S = 2.0  # what the main thread gets to leave by itself once it was told twice


def grace_s_of(environ: Mapping[str, str]) -> float:
    """Seconds that the launcher lets pass between its word and its kill: torchrun's 30 where it says nothing else."""
    try:
        return float(environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    except (KeyError, ValueError):
        return 30.0


def until_step(environ: Mapping[str, str]) -> int | None:
    """The number of steps after which the launcher wants the run saved and left, None where it says nothing."""
    found = environ.get(UNTIL, "")
    return int(found) if found.isdecimal() else None


@dataclass(frozen=True)
class StopRequest:
    """That the run should end: with which code, and why. `received` is time.time()."""

    code: ExitCode
    why: str
    received: float = field(default_factory=time.time)


class Signals:
    """Hears signals from `open` to `close`.

    Until `keep` nothing is lost that could be saved: a signal calls `leave`, which may be replaced, with its words and
    in a thread of its own, and an interrupt is Python's. From then on signals are kept until somebody asks for them: of
    these the ranks may have to be told apart from those that follow a peer's death, and that takes an agreement. A second
    interrupt ends the process at once.

    The interpreter's own handlers wait until the main thread comes back from whatever it does in C, such as a
    collective. So what arrives is also read from a pipe that the system's handler writes to.
    """

    def __init__(self, rank: int, leave: Callable[[str], None]) -> None:
        self.leave = leave
        self._rank = rank
        self._interrupted: float | None = None  # when the main thread was first
        self._read_of_it: float | None = None  # when the pipe first told

    def open(self) -> None:
        """The main thread alone may call it."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._early = threading.Thread(target=self._leave_early, name="signals", daemon=True)
        self._early.start()
        for number in CODES.keys() - {signal.SIGINT}:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
                signal.signal(number, _only_noted)

    def keep(self) -> None:
        """Training begins. The main thread alone may call it."""
        self._end_early()
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)

    def close(self) -> None:
        """The main thread alone may call it, after whoever asks for what was heard has ended.

        What ends processes stays without effect: all is saved, and what was told to some ranks is soon told to others.
        """
        self._end_early()
        for number in CODES:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def request(self) -> StopRequest | None:
        """The request of the first signal since the last call that is one. Any one thread may call it."""
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
    """The byte in the pipe is all."""
