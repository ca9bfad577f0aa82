"""Run git so that neither a checkout's config nor the environment makes it start other commands.

The config of somebody else's checkout may name commands that git runs even for reads: a file system monitor, hooks, a
pager, filters. GIT_ variables may, too, or point to another checkout.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# autoRefreshIndex=false: git does not lock the index, whose lock file would remain after a kill.
_SETTINGS = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "diff.autoRefreshIndex": "false"}
_VARIABLES = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def git(
    folder: Path,
    environ: Mapping[str, str],
    *arguments: str,
    settings: Mapping[str, str] | None = None,
    protocols: str = "none",
    timeout_s: float | None = None,
    limit_bytes: int | None = None,
) -> bytes | None:
    """What `git -C folder arguments` prints; None where there is no git, it fails, or it takes longer than `timeout_s`.

    Of an output longer than `limit_bytes` the first `limit_bytes` + 1 bytes are returned, and git is ended. `settings`
    come on top of the safe ones. `protocols` may be read from; by default none, because a partial clone fetches what it
    lacks by a command of its config's choice.
    """
    options = [part for name, value in (_SETTINGS | dict(settings or {})).items() for part in ("-c", f"{name}={value}")]
    try:
        process = subprocess.Popen(
            ["git", "-C", str(folder), "--no-pager", *options, *arguments],
            env=_environment(environ, protocols),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a process group of its own, to be ended as a whole
        )
    except OSError:
        return None
    output = _read(process, timeout_s, None if limit_bytes is None else limit_bytes + 1)
    cut = limit_bytes is not None and len(output) > limit_bytes
    return output if cut or process.returncode == 0 else None


def _environment(environ: Mapping[str, str], protocols: str) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    return kept | _VARIABLES | {"GIT_ALLOW_PROTOCOL": protocols}


def _read(process: "subprocess.Popen[bytes]", timeout_s: float | None, most_bytes: int | None) -> bytes:
    """Up to `most_bytes` of its output. The process has ended when this returns."""
    assert process.stdout is not None
    deadline = None if timeout_s is None else threading.Timer(timeout_s, _kill, [process.pid])
    if deadline is not None:
        deadline.start()
    try:
        with process:  # leaving closes the pipe, which ends a git that has more to say
            return process.stdout.read(-1 if most_bytes is None else most_bytes)
    finally:
        if deadline is not None:
            deadline.cancel()
            deadline.join()


def _kill(group: int) -> None:
    """End git and what it may have started, which would hold the pipe open."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
