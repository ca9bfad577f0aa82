"""Run the command `phalanx` as a child: print its lines as they come, forward Ctrl-C, wait for its last process."""

import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import IO

from phalanx.system.module_path import PACKAGE


def run_command(words: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str]:
    """Run `phalanx WORDS` with `environ` to its end, printing what it prints.

    Returns its exit code, negative where a signal ended it, and the last line. An interrupt goes to the command, which
    saves and leaves; once it has, the caller's own handler gets it, which raises KeyboardInterrupt by default. On any other
    exception the command is told to save and leave, and has left when that is raised on.
    """
    with Interrupts() as interrupts:
        process = _start(words, environ)
        interrupts.forward_to(process)
        assert process.stdout is not None
        try:
            last = _print_lines(process.stdout)
        except BaseException:
            process.terminate()
            for _ in process.stdout:  # until its last process has ended
                pass
            raise
        finally:
            process.stdout.close()
            code = process.wait()
    return code, last


class Interrupts:
    """Within, SIGINT goes to a child; afterwards the handler of before gets it.

    Python handles signals in the main thread: in another one, and where SIGINT is ignored, nothing is changed.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._process: subprocess.Popen[str] | None = None
        self._main = threading.current_thread() is threading.main_thread()
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> "Interrupts":
        if self._is_ours:
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, self._before)
        if self._heard and error is None:
            signal.raise_signal(signal.SIGINT)

    def forward_to(self, process: "subprocess.Popen[str]") -> None:
        """Also what was heard before `process` was there."""
        self._process = process
        for _ in range(self._heard):
            process.send_signal(signal.SIGINT)

    @property
    def _is_ours(self) -> bool:
        return self._main and self._before not in (None, signal.SIG_IGN)  # None: a handler that is not Python's

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard += 1
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)


def _start(words: Sequence[str], environ: Mapping[str, str]) -> "subprocess.Popen[str]":
    # The command hears SIGINT once it can answer it: a starting Python would print a traceback.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, "-u", str(PACKAGE), *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in a terminal reaches this process only, which forwards it
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _print_lines(lines: IO[str]) -> str:
    """Print lines to this process's sys.stdout, which a notebook replaces. Returns the last that is not empty."""
    last = ""
    for line in lines:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(line.encode(encoding, "replace").decode(encoding), end="", flush=True)
        last = line.strip() or last
    return last
