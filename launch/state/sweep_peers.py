"""Who works on a sweep: any number of processes, on any machine that sees its folder, one of which decides at a time.

Each has a folder below `workers/` in the sweep's, held by a lease as a run is. What one has taken and not ended is free
again once that lease is over.
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

_WORKERS, _TURN = "workers", ".turn"


class SweepPeers(AbstractContextManager["SweepPeers"]):
    """This process among them, from entry to exit at most."""

    def __init__(self, sweep: Path) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._sweep = sweep
        self._folder = sweep / _WORKERS / self.name
        self._turns = 0  # locks within locks of this process
        self.probe = (
            liveness.LivenessProbe()
        )  # at the others and at runs: one that looks again and again needs no clock

    def __enter__(self) -> "SweepPeers":
        """Raises ConfigError where the file system does not let processes take turns."""
        try:
            self._folder.mkdir(parents=True)
            self._file = (self._sweep / _TURN).open("w")
            with self.lock():
                pass
        except OSError as error:
            raise ConfigError(
                f"{self._sweep} cannot be worked in: {error.strerror}. Type run.root=… with a folder to write to, on a "
                "file system with locks"
            ) from None
        self._lease = lease.claim(self._folder, 0, os.environ)
        self._stop = StopFile(self._folder, self._lease.incarnation)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()
        self._file.close()

    def leave(self) -> None:
        """What this process took and has not ended is free."""
        self._lease.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Nobody else decides meanwhile. Yields whether this process has its turn only now."""
        begins = not self._turns
        if begins:
            fcntl.lockf(self._file, fcntl.LOCK_EX)  # freed by the system when this process dies
        self._turns += 1
        try:
            yield begins
        finally:
            self._turns -= 1
            if begins:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def is_alive(self, name: str) -> bool:
        """Whether one of them works right now, as far as can be told from here."""
        if name == self.name:
            return True
        holder = self.probe.live(self._sweep / _WORKERS / name)
        return holder is not None and not lease_holders.is_earlier_start(holder, os.environ)

    def others(self) -> bool:
        """Whether anyone else works right now."""
        return any(self.is_alive(place.name) for place in places(self._sweep) if place != self._folder)

    def told_to_leave(self) -> bool:
        """Whether somebody asked for it by `stop`."""
        return self._stop.request() is not None


def places(sweep: Path) -> list[Path]:
    """The folders of those that work on the sweep in the folder `sweep`, or did until they were killed."""
    return sorted((sweep / _WORKERS).glob("*"))
