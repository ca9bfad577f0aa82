"""The subprocess that sends metrics to Weights & Biases. It is run as a file and imports nothing but W&B.

W&B runs in its own process because it blocks its host: its import holds the GIL for tenths of a second, its exit hook
waits for its service without a timeout, and it replaces `sys.exit` and `sys.excepthook`.

Standard input brings JSON lines: {"settings": {}, "config": {}} first, then {"log": {}} for each line, at the end
{"finish": {}} with the summary or {"finish": null}. What went wrong leaves by standard output, in one line.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

POLL_S = 0.5  # how often to check that the trainer is alive
ALONE_S = 3.0  # W&B's timeout to finish after the trainer died

Message = dict[str, Any]


def main(trainer: int) -> None:
    requests, report = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # W&B's service inherits these: if it hung, the trainer would wait for its pipe to end
        os.dup2(null, standard)
    _leave_signals_to(trainer)
    threading.Thread(target=_follow, args=(trainer,), daemon=True).start()
    try:
        _record(_messages(requests, trainer))
    except BaseException as error:
        said = ": ".join(filter(None, [type(error).__name__, str(error)]))
        os.write(report, said.encode(errors="replace")[: select.PIPE_BUF])
        os._exit(1)  # any other way out leads through W&B's exit hook


def _record(messages: Iterator[Message]) -> None:
    start = next(messages)
    os.environ.pop("WANDB_SERVICE", None)  # another process's, which would outlive this one
    os.environ.setdefault("WANDB_CACHE_DIR", start["settings"]["root_dir"])  # its logs go to the run folder, not home
    import wandb

    known = {key: value for key, value in start["settings"].items() if key in wandb.Settings.model_fields}
    run = wandb.init(config=start["config"], settings=wandb.Settings(**known))
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    summary = None  # stays so when the trainer dies
    for message in messages:
        if "finish" in message:
            summary = message["finish"]
            break
        run.log(message["log"])
    run.summary.update(summary or {})
    run.finish(exit_code=1 if summary is None else 0)


def _messages(requests: int, trainer: int) -> Iterator[Message]:
    """The trainer's messages, while it is alive. EOF does not tell, since data workers may hold the pipe open."""
    rest = b""
    while _lives(trainer) or _readable(requests, 0):
        if _readable(requests, POLL_S):
            chunk = os.read(requests, 1 << 16)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, lines)


def _readable(requests: int, timeout_s: float) -> bool:
    return bool(select.select([requests], [], [], timeout_s)[0])


def _leave_signals_to(trainer: int) -> None:
    """Ignore signals that a scheduler sends to all processes of a job; forward SIGINT, which W&B's stop button sends."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: os.kill(trainer, signal.SIGINT) if _lives(trainer) else None)


def _follow(trainer: int) -> None:
    """Exit soon after the trainer, even if W&B hangs. Its service ends when this process is gone."""
    while _lives(trainer):
        time.sleep(POLL_S)
    time.sleep(ALONE_S)
    os._exit(1)


def _lives(trainer: int) -> bool:
    return os.getppid() == trainer


if __name__ == "__main__":
    main(int(sys.argv[1]))
