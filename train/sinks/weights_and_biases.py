"""Weights & Biases sink: sends to a subprocess, so that training neither waits for W&B nor fails with it."""

import fcntl
import json
import logging
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from phalanx.common.files import write_atomic
from phalanx.config.wandb_mode import Mode
from phalanx.run_folder import names

from . import wandb_process
from .scalars import scalars
from .sink import Sink

PIPE_BYTES = 1 << 20  # some thousand lines: more than is logged while W&B starts
SUMMARY_KEYS = ("samples", "wall_s", "goodput", "weights_sha256")  # the metrics are there, from the last line of each
PRIVATE = {
    "program": "train/main.py",
    "silent": True,
    "console": "off",
    "x_disable_meta": True,  # the command line, among others
    "x_save_requirements": False,
    "disable_code": True,
    "disable_git": True,
}

logger = logging.getLogger(__name__)


@final
class WeightsAndBiases(Sink):
    """One W&B run for this run folder, however often the training starts; its files lie in wandb/ of `root`, or `folder`.

    A process of its own does the work (see `wandb_process`). The pipe to it is the queue: while it is full, lines are
    dropped. `config` must hold no secrets. `close` takes `finish_timeout_s` at most. A failure is one warning, after
    which nothing more is sent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: Mode,
        project: str | None,
        entity: str | None,
        group: str | None,
        tags: Sequence[str],
        name: str | None,
        root: Path | None = None,
        config: Mapping[str, object],
        finish_timeout_s: float,
    ) -> None:
        parent = (root or folder).absolute()
        self._files = parent / names.WANDB
        self._finish_timeout_s = finish_timeout_s
        self._dropping = False
        self._unsent = b""  # the rest of a line that the pipe took in part
        self._process: subprocess.Popen[bytes] | None = None
        if mode == "disabled":
            return
        settings = {
            **PRIVATE,
            "mode": mode,
            "project": project,
            "entity": entity,
            "run_group": group,
            "run_tags": list(tags),
            "run_name": name,
            "resume": "allow",
            "root_dir": str(parent),
            "x_stats_pid": os.getpid(),
            "finish_timeout": 0.8 * finish_timeout_s,  # to end in good order before being ended
        }
        try:
            settings["run_id"] = _run_id(folder.absolute() / names.WANDB / names.WANDB_RUN_ID)
            self._process = _start_process()
            _send_first(self._process, {"settings": settings, "config": config})
        except OSError as error:
            self._give_up(str(error))

    def write(self, line: Mapping[str, object]) -> None:
        self._send({"log": {"step": line["step"], **scalars(line)}})

    def event(self, event: Mapping[str, object]) -> None:
        """Events are no curves; they stay in events.jsonl."""

    def close(self, summary: Mapping[str, object] | None) -> None:
        deadline_s = time.monotonic() + self._finish_timeout_s
        finish = None if summary is None else {key: summary[key] for key in SUMMARY_KEYS if key in summary}
        if self._process is not None:
            while self._unsent and time.monotonic() < deadline_s and self._process is not None:
                _wait_for_room(self._process, deadline_s - time.monotonic())
                self._send_pending()
            self._send({"finish": finish})
        if self._process is None:
            return
        try:
            code = self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            limit = f"not all was sent in {self._finish_timeout_s:g} s"
            self._give_up(f"{limit}. To send the rest: wandb sync {self._files}/*run-*")
        else:
            if code != 0:
                self._give_up(f"its process ended with code {code}")
            self._release()

    def _send(self, message: Mapping[str, object]) -> None:
        if self._process is None:
            return
        self._send_pending()
        if not self._unsent:
            self._unsent = json.dumps(message).encode() + b"\n"
            self._send_pending()
        elif not self._dropping:
            logger.warning("Weights & Biases is too slow for this run: some lines are missing there")
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
        logger.warning("Weights & Biases gets no more of this run, which goes on: %s", said or reason)

    def _release(self) -> str:
        """Kill the process, if there is one; returns the error that it reported."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()
        said, _ = process.communicate()
        return said.decode(errors="replace").strip()


def _run_id(path: Path) -> str:
    """The id of the W&B run of this folder, drawn at its first start."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, secrets.token_hex(6))
    return path.read_text()


def _start_process() -> subprocess.Popen[bytes]:
    # A session of its own: neither Ctrl-C nor torchrun's signals to the process group end it before the trainer ends.
    return subprocess.Popen(
        [sys.executable, "-P", wandb_process.__file__, str(os.getpid())],
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
