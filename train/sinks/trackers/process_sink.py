"""Sends a run to a tracker's subprocess, so that training neither waits for the tracker nor fails with it."""

import fcntl
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from phalanx.common.files import read_text, write_atomic

from ..scalars import scalars
from ..shown import Shown
from ..sink import Sink
from . import process
from .best_values import BestValues
from .shown_message import shown_message

PIPE_BYTES = 1 << 20  # some thousand lines: more than is logged while a tracker starts
SUMMARY_KEYS = ("samples", "wall_s", "goodput", "weights_sha256")  # the metrics are there, from the last line of each

logger = logging.getLogger(__name__)


class ProcessSink(Sink):
    """A tracker whose work is done by the recorder in a process of its own (see `process`).

    The pipe to it is the queue: while it is full, lines are dropped. `close` takes `finish_timeout_s` at most. A failure
    is one warning, after which nothing more is sent. A derived class calls `_start` with what its recorder begins with,
    which must hold no secrets that the tracker must not show.
    """

    waits_to_close: ClassVar[bool] = True
    title: ClassVar[str]
    recorder: ClassVar[str]
    """The name of the recorder's file, beside this one."""

    def __init__(self, folder: Path, best: BestValues, finish_timeout_s: float) -> None:
        """`folder` is the run's."""
        self._folder = folder.absolute()
        self._best = best
        self._finish_timeout_s = finish_timeout_s
        self._failed = self._dropping = False
        self._unsent = b""  # the rest of a line that the pipe took in part
        self._process: subprocess.Popen[bytes] | None = None
        self._sending = threading.RLock()  # the main thread sends lines, another one what is shown

    def write(self, line: Mapping[str, object]) -> None:
        moment = {"step": line["step"], "split": line["split"], "time": line["time"]}
        self._send({**moment, "log": scalars(line)})
        if best := self._best.take(line):
            self._send({**moment, "best": best})

    def show(self, line: Mapping[str, object], shown: Mapping[str, Shown]) -> None:
        self._send(shown_message(self._folder, line, shown))

    def event(self, event: Mapping[str, object]) -> None:
        """Events are no curves; they stay in events.jsonl. One says that the run fails."""
        self._failed = self._failed or event["event"] == "error"

    def close(self, summary: Mapping[str, object] | None) -> None:
        deadline_s = time.monotonic() + self._finish_timeout_s
        finish = None if summary is None else {key: summary[key] for key in SUMMARY_KEYS if key in summary}
        if self._process is not None:
            while self._unsent and time.monotonic() < deadline_s and self._process is not None:
                _wait_for_room(self._process, deadline_s - time.monotonic())
                self._send_pending()
            self._send({"finish": finish, "failed": self._failed})
        if self._process is None:
            return
        try:
            code = self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._give_up(f"not all was sent in {self._finish_timeout_s:g} s{self._how_to_send_the_rest()}")
        else:
            if code != 0:
                self._give_up(f"its process ended with code {code}")
            self._release()

    def _how_to_send_the_rest(self) -> str:
        """What to type where `close` ran out of time, as a sentence that goes on; empty where nothing helps."""
        return ""

    def _start(self, first: Mapping[str, object]) -> None:
        """Start the process and send it its first message. Raises OSError."""
        self._process = _start_process(self.recorder)
        _send_first(self._process, first)

    def _send(self, message: Mapping[str, object]) -> None:
        with self._sending:
            if self._process is None:
                return
            self._send_pending()
            if not self._unsent:
                self._unsent = json.dumps(message).encode() + b"\n"
                self._send_pending()
            elif not self._dropping:
                logger.warning("%s is too slow for this run: some lines are missing there", self.title)
                self._dropping = True

    def _send_pending(self) -> None:
        """Write what the pipe takes without blocking."""
        try:
            while self._unsent and self._process is not None:
                assert self._process.stdin is not None
                self._unsent = self._unsent[os.write(self._process.stdin.fileno(), self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._unsent = b""
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        said = self._release()
        logger.warning("%s gets no more of this run, which goes on: %s", self.title, said or reason)

    def _release(self) -> str:
        """Kill the process, if there is one; returns the error that it reported."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()
        said, _ = process.communicate()
        return said.decode(errors="replace").strip()


def _start_process(recorder: str) -> subprocess.Popen[bytes]:
    # A session of its own: neither Ctrl-C nor torchrun's signals to the process group end it before the trainer ends.
    return subprocess.Popen(
        [sys.executable, "-P", process.__file__, str(os.getpid()), str(Path(__file__).with_name(recorder))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _send_first(process: subprocess.Popen[bytes], first: Mapping[str, object]) -> None:
    """Send the first message, however long, then make the pipe non-blocking."""
    assert process.stdin is not None
    with suppress(OSError, AttributeError):  # Linux alone has this
        fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process.stdin.write(json.dumps(first, default=str).encode() + b"\n")
    process.stdin.flush()
    os.set_blocking(process.stdin.fileno(), False)


def _wait_for_room(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    assert process.stdin is not None
    room = select.poll()
    room.register(process.stdin, select.POLLOUT)
    room.poll(timeout_s * 1000)


def drawn_once(file: Path, drawn: str) -> str:
    """What names the tracker's run of a run folder: `drawn` at its first start, from then on as the file has it.

    Raises OSError.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, drawn)
    return read_text(file)
