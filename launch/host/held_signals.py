"""Signals that wait until they are asked for, so that none comes between two lines."""

import signal
from types import TracebackType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class HeldSignals:
    """Hears what ranks must hear, and the end of children. `interrupts` counts SIGINT; `stops` tells of any.

    What is ignored when this begins stays ignored, as SIGHUP is under nohup.
    """

    def __init__(self) -> None:
        self.interrupts = 0
        self.stop_requested = False
        self._heard = {heard for heard in _PASSED_ON if signal.getsignal(heard) is not signal.SIG_IGN}

    def __enter__(self) -> "HeldSignals":
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where a caller ignored it, how children ended would be lost
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._heard, signal.SIGCHLD})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unblock()

    def unblock(self) -> None:
        """Let signals through as before; for a child, too, which inherits what is held back."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def next(self, timeout_s: float) -> signal.Signals | None:
        """The next signal for the ranks; None when a child ended or `timeout_s` seconds went by."""
        found = signal.sigtimedwait({*self._heard, signal.SIGCHLD}, max(0.0, min(timeout_s, 3600.0)))
        # One of those asked for, or nothing: interrupted after its time, as by SIGSTOP and SIGCONT, CPython returns a
        # structure that nobody filled.
        if found is None or found.si_signo not in self._heard:
            return None
        self.stop_requested = True
        self.interrupts += found.si_signo == signal.SIGINT
        # A terminal that is gone is no less a reason to save than any other, and ranks listen to SIGTERM.
        return signal.SIGTERM if found.si_signo == signal.SIGHUP else signal.Signals(found.si_signo)

    def wait_for_child(self, timeout_s: float) -> None:
        """Until a child has ended, at most `timeout_s` seconds."""
        signal.sigtimedwait({signal.SIGCHLD}, timeout_s)

    def drain(self) -> None:
        """Take note of what came when no rank was left to be told."""
        while signal.sigpending() & self._heard:
            self.next(0.0)
