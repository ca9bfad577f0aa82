"""Start `phalanx` from a process that has imported all: for tests of what a command does, not of how it starts."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from tests.ranks import Nursery


class WarmCommand(subprocess.Popen[str]):
    """`phalanx words`, as subprocess.Popen would have it; its parent is another process."""

    def __init__(self, nursery: Nursery, words: Sequence[str], **options: Any) -> None:
        self._address = nursery.address
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


def run_warm(nursery: Nursery, words: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """`phalanx words` to its end, with what it printed."""
    with WarmCommand(nursery, words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        output, errors = process.communicate(timeout=100)
    return subprocess.CompletedProcess(list(words), process.returncode, output, errors)
