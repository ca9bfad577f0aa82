"""The code as it is now, kept for a job that starts later: what git knows of, or would if it were added."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from train.outcome import ConfigError

_UNTRACKED_LIMIT = 2**28  # bytes; more is data that somebody forgot to ignore
# A checkout's own config can name commands that git starts while it reads.
_INERT = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


def checkout(folder: Path, environ: Mapping[str, str]) -> Path | None:
    """The top folder of the git checkout that `folder` lies in and that knows of it; None where there is none."""
    if not folder.is_dir():
        return None
    top = _git(folder, environ, "rev-parse", "--show-toplevel")
    if not top or _git(folder, environ, "check-ignore", "--quiet", ".") is not None:
        return None
    return Path(os.fsdecode(top.removesuffix(b"\n")))


def take(top: Path, target: Path, environ: Mapping[str, str]) -> None:
    """Copy the checkout at `top` to `target`: files as they are, with the commit, so that git tells the same of both.

    What git ignores stays behind. Raises ConfigError when files that git does not track are too large to be code.
    """
    untracked = _listed(top, environ, "--others", "--exclude-standard")
    _check_size(top, untracked)
    _begin(top, target, environ)
    for name in [*_listed(top, environ, "--cached"), *untracked]:
        source, copy = top / name, target / name
        if source.is_dir() and not source.is_symlink():  # a submodule
            shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True)
        elif os.path.lexists(source):  # else it was deleted, and not yet from git's index
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def take_installed(root: Path, target: Path) -> None:
    """Copy Phalanx from `root` where it is no checkout, such as among installed packages."""
    for name in ("conf", "launch", "slurm", "train"):
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def _begin(top: Path, target: Path, environ: Mapping[str, str]) -> None:
    """`target` as a checkout of the same commit without files; a folder alone where there is no commit."""
    target.mkdir(parents=True)
    branch = _git(top, environ, "rev-parse", "--abbrev-ref", "HEAD")
    if branch is None:
        return
    _git(target, environ, "init", "--quiet", "--template=", f"--initial-branch={os.fsdecode(branch).strip()}")
    _git(target, environ, "fetch", "--quiet", "--depth=1", "--no-tags", str(top), "HEAD")
    _git(target, environ, "reset", "--quiet", "FETCH_HEAD")


def _listed(top: Path, environ: Mapping[str, str], *which: str) -> list[str]:
    listed = _git(top, environ, "ls-files", "-z", *which)
    assert listed is not None, "a checkout lists its files"
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def _check_size(top: Path, untracked: list[str]) -> None:
    sizes = {name: (top / name).lstat().st_size for name in untracked}
    if sum(sizes.values()) > _UNTRACKED_LIMIT:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"{top} holds {sum(sizes.values()) / 2**20:.0f} MiB that git neither tracks nor ignores, the largest being "
            f"{largest}, and a job takes a copy of the code along. Add what is no code to .gitignore"
        )


def _git(folder: Path, environ: Mapping[str, str], *arguments: str) -> bytes | None:
    """What git prints; None where there is no git or it fails."""
    kept = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(["git", "-C", str(folder), *_INERT, *arguments], env=kept, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
