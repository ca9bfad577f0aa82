"""Lists of packages and their descriptions of a Debian release, by apt-get in folders of its own."""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HELPER = "/usr/lib/apt/apt-helper"


@dataclass(frozen=True)
class DebianIndex:
    """`name` of a release's main section: Packages (of amd64), or Translation-de and so on, as plain text.

    Needs apt-get, on any system that has it, and no root: lists, cache and state lie in a temporary folder, and the
    system's own stay as they are. The content is that whose SHA-256 the release's InRelease states for the plain file. That
    of a stable release changes with each point release, and no more once its long-term support has begun.
    """

    release: str
    name: str
    mirror: str = "http://deb.debian.org/debian"

    def fetch(self, folder: Path, sha256: str) -> Path:
        with tempfile.TemporaryDirectory() as aside:
            options = self._options(Path(aside))
            _run(["apt-get", "update", "-qq", *options])
            listed = _run(["apt-get", "indextargets", "--format", "$(IDENTIFIER) $(LANGUAGE) $(FILENAME)", *options])
            paths = [line.rsplit(" ", 1)[1] for line in listed.decode().splitlines()]
            if len(paths) != 1:
                raise OSError(
                    f"apt-get knows {len(paths)} files for {self.name} of {self.release}, and one was expected"
                )
            content = _run([_HELPER, "cat-file", paths[0], *options])
        file = folder / self.name
        file.write_bytes(content)
        return file

    def _options(self, aside: Path) -> list[str]:
        for name in ("lists/partial", "cache/archives/partial", "state"):
            (aside / name).mkdir(parents=True)
        (aside / "state/status").touch()
        # Other systems lack Debian's keys, and none is asked for: the content is checked against a SHA-256 of ours.
        source = f"deb [arch=amd64 trusted=yes] {self.mirror} {self.release} main\n"
        (aside / "sources.list").write_text(source, encoding="utf-8")
        language = self.name.removeprefix("Translation-") if self.name != "Packages" else "none"
        words = {
            "Dir::Etc::sourcelist": aside / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": aside / "state",
            "Dir::State::status": aside / "state/status",
            "Dir::State::lists": aside / "lists",
            "Dir::Cache": aside / "cache",
            "Acquire::Languages": language,
            "Acquire::IndexTargets::deb::Packages::DefaultEnabled": str(self.name == "Packages").lower(),
            "APT::Sandbox::User": pwd.getpwuid(os.getuid()).pw_name,
        }
        return [word for key, value in words.items() for word in ("-o", f"{key}={value}")]


def _run(words: Sequence[str]) -> bytes:
    """What a command prints. Raises OSError with the last line of its error."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError:
        raise OSError(f"{words[0]} is not installed") from None
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("E:")]
    if done.returncode or lines:
        raise OSError((lines or [f"{words[0]} ended with code {done.returncode}"])[-1])
    return done.stdout
