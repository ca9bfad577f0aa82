"""Blocks signals and receives them one at a time with sigtimedwait, so that no handler runs between two lines."""

import signal
from types import TracebackType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class HeldSignals:
    """Blocks the signals that are forwarded to ranks, and SIGCHLD. `interrupts` counts SIGINT; `stop_requested`: any came.

    A signal that was ignored before stays ignored, as SIGHUP is under nohup.
    """

    def __init__(self) -> None:
        self.interrupts = 0
        self.stop_requested = False
        self._heard = {heard for heard in _PASSED_ON if signal.getsignal(heard) is not signal.SIG_IGN}

    def __enter__(self) -> "HeldSignals":
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # where the caller ignored it, exit codes of children would be lost
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._heard, signal.SIGCHLD})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.unblock()

    def unblock(self) -> None:
        """Restore the signal mask; also in a forked child, which inherits it."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def next(self, timeout_s: float) -> signal.Signals | None:
        """Wait for the next signal to forward; None when a child ended or after `timeout_s` seconds."""
        found = signal.sigtimedwait({*self._heard, signal.SIGCHLD}, max(0.0, min(timeout_s, 3600.0)))
        # One of those asked for, or nothing: interrupted after its time, as by SIGSTOP and SIGCONT, CPython returns a
        # structure that nobody filled.
        if found is None or found.si_signo not in self._heard:
            return None
        self.stop_requested = True
        self.interrupts += found.si_signo == signal.SIGINT
        # Ranks handle SIGTERM and not SIGHUP; a closed terminal is a reason to save, too.
        return signal.SIGTERM if found.si_signo == signal.SIGHUP else signal.Signals(found.si_signo)

    def wait_for_child(self, timeout_s: float) -> None:
        """Wait for SIGCHLD, at most `timeout_s` seconds."""
        signal.sigtimedwait({signal.SIGCHLD}, timeout_s)

    def drain(self) -> None:
        """Receive the pending signals that came after the last rank had ended."""
        while signal.sigpending() & self._heard:
            self.next(0.0)
