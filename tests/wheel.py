"""Phalanx as pip installs it: this checkout, its wheel, and an environment that holds one of them and borrows the rest."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.ranks import QUIET, ROOT

_PIP = (sys.executable, "-m", "pip")
_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
_BUILD = ("-q", "--no-deps", "--no-build-isolation")


def copied(folder: Path) -> Path:
    """What git knows of this checkout, without what builds leave behind, in a new folder."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")):
        if name.partition("/")[0] not in ("tests", "bench") and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def built(source: Path, folder: Path) -> Path:
    """The wheel of a copy of the checkout, or of an sdist that was unpacked."""
    _checked([*_PIP, "wheel", *_BUILD, "-w", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment. All that is installed where the tests run is there, too, but for Phalanx."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def phalanx(self) -> Path:
        return self.folder / "bin" / "phalanx"

    @property
    def site(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def run(
        self, *command: str | Path, cwd: Path, environ: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """A command in `cwd`, which is on the path, as people set it for packages of their own."""
        path = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": "."}
        return subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env={**os.environ, **QUIET, **path, **(environ or {})},
            capture_output=True,
            text=True,
        )


def environment(folder: Path, *install: str) -> Environment:
    """A new environment, in which pip has installed what `install` says, such as a wheel, or -e and a checkout."""
    _checked([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    made = Environment(folder)
    borrowed = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    (made.site / "borrowed.pth").write_text("".join(f"{entry}\n" for entry in borrowed))  # their .pth are not read
    _checked([*_PIP, "--python", str(made.python), "install", *_BUILD, *install])
    return made


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_OFFLINE})
    assert done.returncode == 0, done.stdout + done.stderr
