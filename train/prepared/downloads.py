"""Files of pinned versions, from package registries or by their own address, each checked against its SHA-256."""

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from phalanx.common.files import sha256
from phalanx.exit.codes import ConfigError

_BLOCK = 1 << 20
_TIMEOUT_S = 60  # without a byte from a server


class Way(Protocol):
    """A way to get a file."""

    def fetch(self, folder: Path, sha256: str) -> Path:
        """Put the file into `folder`, where an earlier try may have left some of it. Raises OSError with what went wrong.

        Who calls it checks the hash, too; a way whose program runs what it fetches has it checked before that.
        """
        ...


@dataclass(frozen=True)
class Pip:
    """A wheel of a package on the Python index, or its source archive with `source=True`.

    pip asks a source archive for its metadata, which runs its setup, with packages that `build` constrains, such as
    "setuptools<66"; only after it has checked the hash.
    """

    package: str
    version: str
    source: bool = False
    build: str = ""

    def fetch(self, folder: Path, sha256: str) -> Path:
        kind = ("--no-binary", ":all:") if self.source else ("--only-binary", ":all:")
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
        with tempfile.TemporaryDirectory() as aside:
            wanted, constraint = Path(aside, "wanted.txt"), Path(aside, "constraint.txt")
            wanted.write_text(f"{self.package}=={self.version} --hash=sha256:{sha256}\n", encoding="utf-8")
            constraint.write_text(f"{self.build}\n", encoding="utf-8")
            words = [*pip, *kind, "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
            _command(words, folder, {"PIP_CONSTRAINT": str(constraint)} if self.build else {})
        return _only_file(folder)


@dataclass(frozen=True)
class Npm:
    """A package of the npm registry, as a .tgz."""

    package: str
    version: str

    def fetch(self, folder: Path, sha256: str) -> Path:
        npm = ("npm", "pack", "--silent", "--ignore-scripts")
        _command([*npm, "--pack-destination", str(folder), f"{self.package}@{self.version}"], folder)
        return _only_file(folder)


@dataclass(frozen=True)
class Apt:
    """A package of Debian or of a system derived from it, as a .deb; no root is needed."""

    package: str
    version: str

    def fetch(self, folder: Path, sha256: str) -> Path:
        _command(["apt-get", "download", "-qq", f"{self.package}={self.version}"], folder)
        return _only_file(folder)


@dataclass(frozen=True)
class Url:
    """A file at an https address. What has arrived is kept: an answer that breaks off is asked for its rest, as long as
    something comes, and so is what a kill left. A server that knows no ranges sends it all anew."""

    address: str

    def fetch(self, folder: Path, sha256: str) -> Path:
        file = folder / (Path(urlsplit(self.address).path).name or "download")
        if _has(file, sha256):  # killed between its last byte and its name
            return file
        while True:
            have = _size(file)
            wrong = self._go_on(file, have)
            if wrong is None:
                return file
            if _size(file) <= have:
                raise OSError(f"{self.address}: {wrong}")

    def _go_on(self, file: Path, have: int) -> str | None:
        """Get what follows the first `have` bytes. Says what went wrong; None where all of it is there."""
        try:
            request = urllib.request.Request(self.address, headers={"Range": f"bytes={have}-"} if have else {})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                start = have if answer.status == 206 else 0
                if start and not (answer.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
                    file.unlink()
                    return f"{answer.headers['Content-Range']} came where bytes from {start} on were asked for"
                with file.open("ab" if start else "wb", buffering=0) as out:
                    while block := answer.read1(_BLOCK):
                        out.write(block)
                came, length = _size(file) - start, answer.headers["Content-Length"]
            return f"it broke off after {came} of {length} bytes" if length and came < int(length) else None
        except HTTPError as error:
            if error.code == 416 and have:  # what is there is no beginning of the file
                file.unlink()
                return self._go_on(file, 0)
            return f"{error.code} {error.reason}"
        except URLError as error:
            return str(error.reason)
        except (HTTPException, OSError, ValueError) as error:
            return str(error) or type(error).__name__


@dataclass(frozen=True)
class Download:
    """One file, by the first of several ways that works.

    `licence` and `origin` (a paper, an address) are what a user has to know before the data are used.
    """

    ways: Sequence[Way]
    sha256: str
    licence: str
    origin: str

    def get(self, folder: Path) -> Path:
        """The file below `folder`, fetched unless it is there with its hash. Raises ConfigError.

        One caller at a time, which holds the lock of the cache.
        """
        kept = folder / self.sha256[:16]
        if kept.is_dir() and (there := [file for file in kept.iterdir() if sha256(file) == self.sha256]):
            return there[0]
        failed = []
        for way in self.ways:
            try:
                return self._checked(way, kept)
            except OSError as error:
                failed.append(f"{way}: {error}")
        raise ConfigError(f"data cannot be fetched here. {'; '.join(failed)}")

    def _checked(self, way: Way, kept: Path) -> Path:
        partial = kept.with_name(f"{kept.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        file = way.fetch(partial, self.sha256)
        found = sha256(file)
        if found != self.sha256:
            shutil.rmtree(partial)
            raise OSError(f"{file.name} has the SHA-256 {found}, and not {self.sha256}: it is another file")
        shutil.rmtree(kept, ignore_errors=True)
        partial.rename(kept)
        return kept / file.name


def _has(file: Path, digest: str) -> bool:
    return file.exists() and sha256(file) == digest


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _command(words: Sequence[str], folder: Path, environ: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run a package manager in `folder`, emptied. Raises OSError with the last line that it printed."""
    for left in folder.iterdir():
        left.unlink()
    try:
        with tempfile.TemporaryDirectory() as home:
            environ = {**os.environ, **environ, "npm_config_cache": home}
            done = subprocess.run(
                words, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
    except FileNotFoundError:
        raise OSError(f"{words[0]} is not installed") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().lstrip().startswith(("error", "e:", "npm err"))]
        raise OSError((errors or lines or [f"exit code {done.returncode}"])[-1].strip())


def _only_file(folder: Path) -> Path:
    files = [file for file in folder.iterdir() if file.is_file()]
    if len(files) != 1:
        raise OSError(f"one file was expected and {len(files)} came")
    return files[0]
