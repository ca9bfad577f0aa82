"""The subprocess that sends a run to a tracker. It is run as a file and imports nothing but the tracker's package.

A tracker has its own process because it blocks its host: W&B's import holds the GIL for tenths of a second, MLflow's for
seconds, W&B's exit hook waits for its service without a timeout, and a request to a server that is gone is tried again
for minutes.

The second argument is the file of the recorder beside this one, whose `record(first, chunks)` does the work. Standard
input brings messages as JSON lines: first what it begins with, then for each line {"step": 10, "split": "eval",
"time": 1.5, "log": {}}, after an evaluation that is the best so far "best": {} in the place of "log", for what a task
shows "show": {"eval/sample": {"kind": "image", "path": "/…", "caption": ""}}, at the end {"finish": {}} with the summary,
or {"finish": null, "failed": true} where the run stopped before its end, or failed. What went wrong leaves by standard
output, in one line.

A tracker that keeps a step as often as it gets it, as W&B and trackio do, begins with `sent`: a `file`, and the `id` of its
run. What a recorder has brought to its end is noted there, by split, and what a restart does again up to there is dropped.
A recorder that is killed itself notes nothing: its steps may come twice, and none is missing.
"""

import fcntl
import json
import os
import runpy
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

POLL_S = 0.5  # how often to check that the trainer is alive
ALONE_S = 3.0  # a tracker's timeout to finish after the trainer died
_NOTE_BYTES = 1 << 20  # of what is noted, at most

Message = dict[str, Any]


def main(trainer: int, recorder: str) -> None:
    requests, report = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # W&B's service inherits these: if it hung, the trainer would wait for its pipe to end
        os.dup2(null, standard)
    _leave_signals_to(trainer)
    threading.Thread(target=_follow, args=(trainer,), daemon=True).start()
    try:
        chunks = _chunks(requests, trainer)
        first, *more = next(chunks)
        sent = _Sent(**first["sent"]) if "sent" in first else None
        runpy.run_path(recorder)["record"](
            first, map(sent.new, chain([more], chunks)) if sent else chain([more], chunks)
        )
        if sent is not None:
            sent.note()
    except BaseException as error:
        said = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
        os.write(report, said.encode(errors="replace")[: select.PIPE_BUF])
        os._exit(1)  # any other way out leads through W&B's exit hook


class _Sent:
    """The last step that the run `id` has, by kind of message and split. One process at a time holds `file`."""

    def __init__(self, file: str, id: str) -> None:
        self._id = id
        self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX)  # the start before may still be finishing
        self._before: dict[str, int] = {}
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            known = json.loads(os.pread(self._file, _NOTE_BYTES, 0))
            if known["id"] == id:
                self._before = {str(name): int(step) for name, step in known["steps"].items()}
        self._now = dict(self._before)

    def new(self, messages: list[Message]) -> list[Message]:
        """Those that the run does not have."""
        return [message for message in messages if self._is_new(message)]

    def _is_new(self, message: Message) -> bool:
        kind = next((kind for kind in ("log", "best", "show") if kind in message), None)
        if kind is None:
            return True
        name = f"{kind} {message['split']}"
        self._now[name] = max(self._now.get(name, -1), message["step"])
        return bool(message["step"] > self._before.get(name, -1))

    def note(self) -> None:
        """All that was given to the recorder is sent."""
        text = json.dumps({"id": self._id, "steps": self._now}).encode()
        os.truncate(self._file, 0)
        os.pwrite(self._file, text, 0)


def _chunks(requests: int, trainer: int) -> Iterator[list[Message]]:
    """The trainer's messages, as many as are there at a time, while it is alive.

    EOF does not tell, since data workers may hold the pipe open.
    """
    rest = b""
    while _lives(trainer) or _readable(requests, 0):
        if _readable(requests, POLL_S):
            chunk = os.read(requests, 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                yield [json.loads(line) for line in lines]


def _readable(requests: int, timeout_s: float) -> bool:
    return bool(select.select([requests], [], [], timeout_s)[0])


def _leave_signals_to(trainer: int) -> None:
    """Ignore signals that a scheduler sends to all processes of a job; forward SIGINT, which W&B's stop button sends."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: os.kill(trainer, signal.SIGINT) if _lives(trainer) else None)


def _follow(trainer: int) -> None:
    """Exit soon after the trainer, even if the tracker hangs. W&B's service ends when this process is gone."""
    while _lives(trainer):
        time.sleep(POLL_S)
    time.sleep(ALONE_S)
    os._exit(1)


def _lives(trainer: int) -> bool:
    return os.getppid() == trainer


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
