"""A real PostgreSQL of a test's own, which listens on a socket in its folder, and goes away and comes back as told."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
_USER = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # it refuses to run as root


@dataclass(frozen=True)
class Postgres:
    folder: Path

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://{_USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        options = f"-c listen_addresses='' -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """As when its machine fails: connections break, and new ones are refused."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def make(self) -> None:
        self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8")

    def _run(self, program: str, *options: str) -> None:
        subprocess.run(
            [_BINARIES / program, "-D", str(self.folder / "data"), *options],
            cwd=self.folder,
            user=_USER if os.geteuid() == 0 else None,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """One that has started."""
    if not (_BINARIES / "initdb").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    made = Postgres(Path(tempfile.mkdtemp(prefix="phalanx-postgres-")))  # a socket's path must be short
    try:
        if os.geteuid() == 0:
            shutil.chown(made.folder, _USER)
        made.make()
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)
