"""The fork server: a process that has imported torch and the trainer, and forks the ranks of trials from itself.

A rank is forked ahead of time, initializes its GPU (a CUDA context does not survive a fork) and waits until it is told what
to train. Ranks are real processes with the environment that torchrun gives them, and are told to
save and leave (SIGTERM) when this one is gone.

Reads one JSON object a line: {"environ", "gpu"} for a rank, where "gpu" is the number of its GPU among those it sees, or
null; and {"pid", "argv", "environ", "cwd", "output"} for what it trains, with what argv composes to where that is known:
"plain" and "foreign", as `compose` gives them. Answers {"pid"}, and {"pid", "code"} when a rank ended (negative: by that
signal). A rank says {"ready": pid} when it has met its GPU.
"""

import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

import phalanx.train.main
from phalanx.compose.compose import compose, composed_of

from ..host.processes import end_with_this_process, raise_on_interrupt
from ..local.preload import become_main, preload


def main() -> None:
    """Import everything, then serve until standard input closes."""
    compose([])  # reads Hydra's plugins and grammars once for all
    preload()
    serve()
    os._exit(0)  # at once, for that is when its ranks are told


def serve() -> None:
    """Fork ranks on request and report their exit codes, until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all; who started this one tells the ranks
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting: dict[int, int] = {}  # rank -> where its request is written
    pending = b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _report_ended()
        if 0 in ready:
            words = os.read(0, 65536)
            if not words:
                return
            *lines, pending = (pending + words).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                if "pid" in asked:
                    _send_request(waiting.pop(asked["pid"]), line)
                else:
                    _answer({"pid": _fork(asked, waiting)})


def _send_request(request_out: int, line: bytes) -> None:
    with os.fdopen(request_out, "wb") as file, suppress(BrokenPipeError):  # how it ended is reported
        file.write(line)


def _fork(asked: dict[str, Any], waiting: dict[int, int]) -> int:
    request_in, request_out = os.pipe()
    end_with_server = end_with_this_process(signal.SIGTERM)
    pid = os.fork()
    if pid:
        os.close(request_in)
        waiting[pid] = request_out
        return pid
    try:
        end_with_server()
        for other in (request_out, *waiting.values()):
            os.close(other)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _init_gpu(asked)
        with os.fdopen(request_in, "rb") as file:
            words = file.read()
        if not words:
            os._exit(0)  # it is not needed any more
        told = json.loads(words)
        _set_up_rank(told)
        known = "plain" in told
        phalanx.train.main.main(composed_of(told["plain"], told["foreign"]) if known else None)
    except Exception:
        traceback.print_exc()
    sys.exit(70)


def _init_gpu(asked: dict[str, Any]) -> None:
    """Make the context of a rank's GPU, which takes a second or more, and nothing else: what a run sets counts later."""
    os.environ.update(asked["environ"])
    if asked["gpu"] is not None:
        import torch

        try:
            torch.cuda.set_device(asked["gpu"])
            torch.cuda.synchronize()
        except RuntimeError:
            return  # as where one process at a time may use the GPU
    _answer({"ready": os.getpid()})


def _set_up_rank(asked: dict[str, Any]) -> None:
    raise_on_interrupt()
    os.setpgid(0, 0)
    output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    os.close(null)
    os.close(output)
    os.chdir(asked["cwd"])
    os.environ.update(asked["environ"])
    sys.argv = ["train/main.py", *asked["argv"]]
    become_main()
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _report_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _answer({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _answer(words: dict[str, Any]) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())
