"""The process that data workers are forked from: itself forked from the rank, early, or started by multiprocessing.

Forked, it and all workers share the memory of what the rank had imported, and nothing is imported twice.
"""

import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any, NoReturn

from phalanx.run_folder import leftovers

# Slurm and a terminal signal every process of a job; only the rank decides what that means for its run.
FOR_THE_RANK = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def fork_server() -> None:
    """Fork the server from this process, which has only imported by now.

    Afterwards it may open sockets and files, use a GPU and import the user's modules, none of which survives a fork well.
    """
    if sys.version_info >= (
        3,
        14,
    ):  # where multiprocessing starts its server otherwise; it does so with the first worker
        return
    server: Any = forkserver._forkserver
    leftovers.sweep_and_mark()
    with signals_blocked():
        resource_tracker.ensure_running()
    alive_read, alive_write = os.pipe()
    with socket.socket(socket.AF_UNIX) as listener:
        address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        listener.bind(address)
        os.chmod(address, 0o600)
        listener.listen()
        with signals_blocked(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that a fork copies no threads
            pid = os.fork()
            if not pid:
                os.close(alive_write)
                _serve(listener.detach(), alive_read)
    os.close(alive_read)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, alive_write, pid


def _serve(listener: int, alive: int) -> NoReturn:
    """Fork workers until the rank has ended, which also closes its end of `alive`."""
    try:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        import phalanx.train.loading.workers.worker_parent  # noqa: F401 - sets this process up

        forkserver.main(listener, alive, [])
    finally:
        os._exit(0)


def ensure_running() -> None:
    """Start the server if there is none; it imports torch then. multiprocessing's resource tracker, too."""
    leftovers.sweep_and_mark()
    forkserver.set_forkserver_preload(["phalanx.train.loading.workers.worker_parent", "torch.utils.data"])
    for ensure in (resource_tracker.ensure_running, forkserver.ensure_running):
        with signals_blocked():
            ensure()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Start processes inside with the rank's signals blocked, and without resource_tracker's warning for a killed rank."""
    environ, before = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_RANK)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    try:
        yield
    finally:
        os.environ.pop("PYTHONWARNINGS")
        os.environ.update(environ)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
