"""What a launcher hears while it waits, and that nothing else is taken for a signal."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phalanx.launch.host.held_signals import HeldSignals
from tests.ranks import until

WAIT_S = 0.02


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@contextmanager
def listening(wait_s: float) -> Iterator[tuple[int, int]]:
    """A process that waits for signals again and again until it hears one: its number, and where it says which."""
    hear, tell = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            with HeldSignals() as signals:
                os.write(tell, b"ready\n")
                while (heard := signals.next(wait_s)) is None:
                    pass
                os.write(tell, f"{heard.name} {signals.interrupts}\n".encode())
                code = 0
        finally:
            os._exit(code)
    os.close(tell)
    try:
        assert os.read(hear, 64) == b"ready\n"
        yield pid, hear
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(hear)


@pytest.mark.parametrize("stopped_s", [0.0, 3 * WAIT_S])
def test_a_stop_and_a_continue_are_no_signal_for_the_ranks(stopped_s: float) -> None:
    """As of Ctrl-Z and fg, a debugger, Slurm's suspend; also when the wait's time was over meanwhile."""
    with listening(WAIT_S) as (pid, hear):
        for _ in range(5):
            os.kill(pid, signal.SIGSTOP)
            until(lambda: _state(pid) in "TZ")
            time.sleep(stopped_s)  # the time itself is what this is about
            os.kill(pid, signal.SIGCONT)
            until(lambda: _state(pid) != "T")
        os.kill(pid, signal.SIGINT)
        assert os.read(hear, 64) == b"SIGINT 1\n"


def test_a_signal_that_came_while_stopped_is_heard() -> None:
    with listening(WAIT_S) as (pid, hear):
        os.kill(pid, signal.SIGSTOP)
        until(lambda: _state(pid) in "TZ")
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGCONT)
        assert os.read(hear, 64) == b"SIGTERM 0\n"
