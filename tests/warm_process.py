"""A process that tests fork commands from, once it has imported what they import, and ranks if it is told to.

Each connection to the socket whose descriptor is its argument is a command: a JSON object with "words", "cwd" and "environ"
along with three descriptors is answered with its pid, and with its status of wait once it has ended. With --ranks it has
imported torch, and reads and writes as its standard streams what the fork server of a sweep does.
"""

import atexit
import importlib.metadata
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any, NoReturn

from phalanx.compose.compose import compose
from phalanx.exit.interpreter_exit import run_without_teardown
from phalanx.launch import cli
from phalanx.launch.host.processes import raise_on_interrupt
from phalanx.launch.local.preload import preload
from phalanx.launch.sweep import fork_server
from phalanx.system.garbage_collection import gc_paused
from phalanx.system.parent_death import end_with


def main() -> None:
    listener, parent = socket.socket(fileno=int(sys.argv[1])), os.getpid()
    compose([])
    if sys.argv[2:] != ["--ranks"]:
        end_with(os.getppid(), signal.SIGKILL)
        _serve_commands(listener)
    preload()
    _warm_up()
    if os.fork() == 0:
        end_with(parent, signal.SIGKILL)
        _serve_commands(listener)
    listener.close()
    fork_server.serve()
    os._exit(0)


def _warm_up() -> None:
    """What each rank would do anew, with the same result: read the digits, and look for backends in all packages."""
    torch, digits = import_module("torch"), import_module("phalanx.train.data.digits")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others would not outlive a fork
    digits.Digits("train")
    torch.set_num_threads(threads)
    importlib.metadata.entry_points = cache(importlib.metadata.entry_points)  # type: ignore[assignment]
    importlib.metadata.entry_points(group="torch.distributed.backends")


def _serve_commands(listener: socket.socket) -> NoReturn:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those ended that wait for commands
    with gc_paused():
        for verb in cli.VERBS:
            import_module(cli.module_of(verb))
    while True:
        connection, _ = listener.accept()
        if _is_ours(connection) and os.fork() == 0:
            listener.close()
            _serve_command(connection)
        connection.close()


def _is_ours(connection: socket.socket) -> bool:
    """Whether it was opened by this user: the name of the socket is no file, whose mode would keep others out."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.getuid())


def _serve_command(connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    words, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    if (pid := os.fork()) == 0:
        connection.close()
        asked = json.loads(words)
        os.chdir(asked["cwd"])
        _become(cli.main, ["phalanx", *asked["words"]], asked["environ"], streams)
    for descriptor in streams:
        os.close(descriptor)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    connection.send(str(status).encode())
    os._exit(0)


def _become(
    main: Callable[[], None],
    argv: Sequence[str],
    environ: Mapping[str, str],
    streams: Sequence[int],
    kept: Collection[int] = (),
) -> NoReturn:
    """Do what a new Python would that runs `main` with `streams` and the descriptors `kept`."""
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
    for low, high in pairwise([2, *sorted({*kept} - {0, 1, 2}), 1024]):
        os.closerange(low + 1, high)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # the parent's, such as its folders
        finalizer.detach()
    os.environ.clear()
    os.environ.update(environ)
    tempfile.tempdir = None
    sys.argv = [*argv]
    sys.path[:0] = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    for heard in signal.valid_signals():
        if callable(signal.getsignal(heard)):
            signal.signal(heard, signal.SIG_DFL)
    raise_on_interrupt()
    subprocess.Popen = _Warm  # type: ignore[misc]
    try:
        with suppress(ModuleNotFoundError):
            import_module("sitecustomize")
        main()
    except SystemExit as leaving:
        code = leaving.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
    except Exception:
        traceback.print_exc()
        os._exit(1)
    else:
        code = 0
    # Not by way of what called this, which is the parent's.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def _agent() -> None:
    import_module("phalanx.launch.local.agent").main()


class _Warm(subprocess.Popen[Any]):
    """Forks the agent of ranks and the fork server of a sweep from this process instead of starting a Python.

    All else is started as ever.
    """

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, info, flags, shell, *rest
    ) -> None:
        mains = {"launch.sweep.fork_server": fork_server.main, "launch.local.agent": _agent}
        name = next(filter(mains.get, args), None)
        if name is None:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, info, flags, shell, *rest
            )
            return
        self.pid = os.fork()
        if self.pid == 0:
            streams = [given if given >= 0 else stream for stream, given in enumerate((rest[0], rest[3], rest[5]))]
            os.setsid()
            preexec_fn()
            _become(mains[name], args[args.index(name) :], env, streams, pass_fds)
        self._child_created = True
        self._close_pipe_fds(*rest[:6])  # type: ignore[attr-defined]


if __name__ == "__main__":
    run_without_teardown(main)
