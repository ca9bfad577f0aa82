"""The processes that share a sweep, on any machine that sees its folder: a lock between them, and who of them is alive.

Each has a folder below `workers/` in the sweep's, held by a lease as a run is. The runs that one holds are free again once
that lease is over.
"""

import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import lease, lease_holders, liveness
from phalanx.run_folder.stop_file import StopFile

from ..common.sweep_folder import LOCK_FILE, WORKERS


class SweepPeers(AbstractContextManager["SweepPeers"]):
    """Registers this process among them, from entry to exit at most."""

    def __init__(self, sweep: Path) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._sweep = sweep
        self._folder = sweep / WORKERS / self.name
        self._depth = 0  # of locks within locks of this process
        self.probe = liveness.LivenessProbe()  # of the others and of runs; it needs no clock that agrees with theirs

    def __enter__(self) -> "SweepPeers":
        """Raises ConfigError where the file system does not let processes take turns."""
        try:
            self._folder.mkdir(parents=True)
            self._file = (self._sweep / LOCK_FILE).open("w")
            with self.lock():
                pass
        except OSError as error:
            raise ConfigError(
                f"{self._sweep} cannot be worked in: {error.strerror}. Type run.root=… with a folder to write to, on a "
                "file system with locks"
            ) from None
        self._lease = lease.acquire(self._folder, 0, os.environ)
        self._stop = StopFile(self._folder, self._lease.incarnation)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()
        self._file.close()

    def leave(self) -> None:
        """Close the lease: the runs that this process holds are free."""
        self._lease.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the lock of the sweep, also within itself. Yields whether it was taken only now."""
        begins = not self._depth
        if begins:
            fcntl.lockf(self._file, fcntl.LOCK_EX)  # freed by the system when this process dies
        self._depth += 1
        try:
            yield begins
        finally:
            self._depth -= 1
            if begins:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def is_alive(self, name: str) -> bool:
        """Whether one of them is alive, as far as its lease tells."""
        if name == self.name:
            return True
        holder = self.probe.live(self._sweep / WORKERS / name)
        return holder is not None and not lease_holders.is_earlier_start(holder, os.environ)

    def others(self) -> bool:
        """Whether any other is alive."""
        return any(self.is_alive(peer.name) for peer in peer_folders(self._sweep) if peer != self._folder)

    def told_to_leave(self) -> bool:
        """Whether somebody asked for it by `stop`."""
        return self._stop.request() is not None


def peer_folders(sweep: Path) -> list[Path]:
    """The folders of those that work on the sweep in the folder `sweep`, or did until they were killed."""
    return sorted((sweep / WORKERS).glob("*"))
