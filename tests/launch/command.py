"""The command `phalanx` with ranks that stand in for train/main.py: they begin at once and do what a test says."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.launch.host.processes import children
from tests.ranks import QUIET, ROOT, Nursery, until
from tests.warm_command import WarmCommand

_ANSWER = re.compile(r"phalanx: (starting \d+ rank|SIG|ending it at once)")
_RANK = """#!{python}
import json, os, signal, sys, threading
from pathlib import Path

rank, restart, here = int(os.environ["RANK"]), int(os.environ["PHALANX_RESTART_COUNT"]), Path({here!r})
signals = {{signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2}}

def tell(name, text=""):
    part = here / f"{{name}}-{{rank}}.part"
    part.write_text(text)
    part.rename(here / f"{{name}}-{{rank}}")

def cause(code):
    file = Path(os.environ["PHALANX_CAUSE_FILE"])
    words = {{"code": code, "rank": rank, "host": "here", "message": "as told"}}
    file.with_suffix(".part").write_text(json.dumps(words))
    file.with_suffix(".part").rename(file)

def hear():
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    tell("ready")
    return signal.sigwait(signals).name

def wait():
    tell("ready")
    threading.Event().wait()

{body}
"""


@dataclass(frozen=True)
class Started:
    """A running `phalanx`."""

    process: "subprocess.Popen[str]"
    here: Path
    answers: list[str] = field(default_factory=list)
    """What the launcher said at its start, and of each signal; known once it has ended."""

    def ready(self, ranks: int) -> None:
        """Return when ranks 0 to `ranks` - 1 have said `ready`."""
        until(lambda: all((self.here / f"ready-{rank}").exists() for rank in range(ranks)))

    def told(self, name: str, rank: int) -> str:
        return (self.here / f"{name}-{rank}").read_text()

    @property
    def agent(self) -> int:
        (found,) = children(self.process.pid)
        return found

    def wait(self) -> tuple[int, str]:
        """Exit code, and all that was printed but `answers`."""
        output, _ = self.process.communicate(timeout=60)
        lines = output.splitlines(keepends=True)
        self.answers.extend(line.rstrip() for line in lines if _ANSWER.match(line))
        return self.process.returncode, "".join(line for line in lines if not _ANSWER.match(line))


@dataclass
class Launcher:
    """Starts `phalanx` below `folder`; every process that comes of it carries `mark` in its environment."""

    folder: Path
    mark: str
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(
        self,
        *argv: str,
        body: str | None = None,
        environ: Mapping[str, str | None] | None = None,
        within: str = 'exec "$@"',
    ) -> Started:
        """Start it on ranks that do `body`, or on train/main.py where that is None, from a shell script.

        A variable of `environ` that is None is not set.
        """
        here = self._folder()
        more = {**(environ or {}), **({} if body is None else {"PYTHON_EXEC": stand_in(here, body)})}
        process = subprocess.Popen(
            ["sh", "-c", within, "sh", sys.executable, "-m", "phalanx.launch.cli", *argv],
            cwd=here,
            env=self._environ(more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # as a terminal's foreground job is a group of its own
        )
        self.started.append(process)
        return Started(process, here)

    def start_warm(self, nursery: Nursery, *argv: str, environ: Mapping[str, str | None] | None = None) -> Started:
        """Start it, and the agent of its ranks, from a process that has imported all."""
        here = self._folder()
        whole = self._environ(environ or {})
        process = WarmCommand(nursery, argv, cwd=here, env=whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.started.append(process)
        return Started(process, here)

    def _folder(self) -> Path:
        here = self.folder / f"start-{len(self.started)}"
        here.mkdir()
        (self.folder / "tmp").mkdir(exist_ok=True)
        return here

    def _environ(self, more: Mapping[str, str | None]) -> dict[str, str]:
        here_alone = {"MARK": self.mark, "TMPDIR": str(self.folder / "tmp"), "PYTHONPATH": str(ROOT)}
        whole = {**os.environ, **QUIET, **here_alone, **more}
        return {name: value for name, value in whole.items() if value is not None}

    def run(
        self, *argv: str, body: str | None = None, environ: Mapping[str, str | None] | None = None
    ) -> tuple[int, str]:
        return self.start(*argv, body=body, environ=environ).wait()


def stand_in(here: Path, body: str) -> str:
    """The program of ranks that do `body`, and tell of it in `here`: what PYTHON_EXEC names."""
    rank = here / "rank"
    rank.write_text(_RANK.format(python=sys.executable, here=str(here), body=body))
    rank.chmod(0o700)
    return str(rank)


def inside(folder: Path) -> list[int]:
    """The other processes that work in `folder` or below it, also those of a warm start, whose environments do not show."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(folder) and entry.name != str(os.getpid()):
                found.append(int(entry.name))
    return found


def marked(mark: str) -> list[int]:
    """The processes whose environment has `mark` and that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes() and entry.name != str(os.getpid()):
                found.append(int(entry.name))
    return found
