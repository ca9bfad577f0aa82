"""Start `phalanx` from a process that has imported all: for tests of what a command does, not of how it starts."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_ROOT = Path(__file__).resolve().parents[1]


def listening() -> socket.socket:
    """The socket of a tests/warm_process.py to be, under a name that the kernel makes up."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")
    listener.listen()
    return listener


class Warm(Protocol):
    """What commands are forked from, at its socket's address."""

    address: bytes


class CommandServer:
    """Commands are forked from it where it was started by `within`, a command that executes its arguments."""

    def __init__(self, within: Sequence[str], environ: Mapping[str, str]) -> None:
        with listening() as listener:
            self.address: bytes = listener.getsockname()
            self._process = subprocess.Popen(
                [*within, sys.executable, "-m", "tests.warm_process", str(listener.fileno())],
                cwd=_ROOT,
                env=environ,
                pass_fds=[listener.fileno()],
            )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class WarmCommand(subprocess.Popen[str]):
    """`phalanx words`, as subprocess.Popen would have it; its parent is another process."""

    def __init__(self, warm: Warm, words: Sequence[str], **options: Any) -> None:
        self._address = warm.address
        super().__init__(list(words), text=True, **options)

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, info, flags, shell, *rest
    ) -> None:
        stdin, _, _, stdout, _, stderr = rest[:6]
        null = os.open(os.devnull, os.O_RDWR)
        asked = {"words": args, "cwd": os.fspath(cwd), "environ": env or dict(os.environ)}
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(self._address)
        streams = [stream if stream >= 0 else null for stream in (stdin, stdout, stderr)]
        socket.send_fds(self._connection, [json.dumps(asked).encode()], streams)
        self.pid = int(self._connection.recv(64))
        self._child_created = True
        for stream in {*streams, null}:
            os.close(stream)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._connection.fileno() < 0:  # nobody has waited for it, and it is looked after once more
            return self.pid, int(signal.SIGKILL)
        self._connection.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = self._connection.recv(64)
        except BlockingIOError:
            return 0, 0
        self._connection.close()
        return self.pid, int(status or signal.SIGKILL)

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def run_warm(warm: Warm, words: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """`phalanx words` to its end, with what it printed."""
    with WarmCommand(warm, words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            output, errors = process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(list(words), process.returncode, output, errors)
