"""Copies the code for a job that starts later: the files that git tracks, or would if they were added."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from phalanx.exit.codes import ConfigError
from phalanx.run_folder import names
from phalanx.system.git import git

SUBMITTED = ".submitted"  # beside the run folders: what this module copies to
_UNTRACKED_LIMIT = 2**28  # bytes; more is data that somebody forgot to ignore


def checkout_of(folder: Path, environ: Mapping[str, str]) -> Path | None:
    """The top folder of the git checkout that `folder` lies in and that knows of it; None where there is none."""
    if not folder.is_dir():
        return None
    top = git(folder, environ, "rev-parse", "--show-toplevel")
    if not top or git(folder, environ, "check-ignore", "--quiet", ".") is not None:
        return None
    return Path(os.fsdecode(top.removesuffix(b"\n")))


def copy_checkout(top: Path, target: Path, results: Path | None, environ: Mapping[str, str]) -> None:
    """Copy the checkout at `top` to `target`: files as they are, with the commit, so that git tells the same of both.

    What git ignores stays behind, and whatever runs and earlier submissions have left, in the folder `results` or
    elsewhere. Raises ConfigError when other files that git does not track are too large to be code.
    """
    tracked, others = _files(top, environ)
    untracked = _code(others, top, results)
    _check_size(top, untracked)
    _begin(top, target, environ)
    for name in [*tracked, *untracked]:
        source, copy = top / name, target / name
        if os.path.lexists(source):  # else it was deleted, and not yet from git's index
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def copy_installed(root: Path, target: Path) -> None:
    """Copy Phalanx from `root` where it is no checkout, such as among installed packages."""
    shutil.copytree(root / "phalanx", target / "phalanx", ignore=shutil.ignore_patterns("__pycache__"))


def _begin(top: Path, target: Path, environ: Mapping[str, str]) -> None:
    """`target` as a checkout of the same commit without files; a folder alone where there is no commit."""
    target.mkdir(parents=True)
    head = git(top, environ, "symbolic-ref", "--quiet", "HEAD")  # None: detached, as in CI, at a tag or in a submodule
    branch = [] if head is None else [f"--initial-branch={os.fsdecode(head).strip().removeprefix('refs/heads/')}"]
    git(target, environ, "init", "--quiet", "--template=", *branch)
    git(target, environ, "fetch", "--quiet", "--depth=1", "--no-tags", str(top), "HEAD", protocols="file")
    git(target, environ, "update-ref", *(["--no-deref"] if head is None else []), "HEAD", "FETCH_HEAD")
    git(target, environ, "reset", "--quiet")


def _files(top: Path, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What git tracks of the folder `top`, and what it neither tracks nor ignores; also of the checkouts within."""
    listed = [_listed(top, environ, "--cached"), _listed(top, environ, "--others", "--exclude-standard")]
    tracked, untracked = ([name for name in found if not _is_folder(top / name)] for found in listed)
    for folder in {name.rstrip("/") for found in listed for name in found if _is_folder(top / name)}:
        within = _files(top / folder, environ) if (top / folder / ".git").exists() else ([], [])  # else it is empty
        tracked += [f"{folder}/{name}" for name in within[0]]
        untracked += [f"{folder}/{name}" for name in within[1]]
    return tracked, untracked


def _is_folder(path: Path) -> bool:
    """Whether it is a submodule, or a checkout that git does not track, of which git lists no file."""
    return path.is_dir() and not path.is_symlink()


def _listed(top: Path, environ: Mapping[str, str], *which: str) -> list[str]:
    listed = git(top, environ, "ls-files", "-z", *which)
    if listed is None:
        raise ConfigError(
            f"git cannot list the files of {top}, of which a job takes a copy along. See git -C {top} status"
        )
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def _code(untracked: list[str], top: Path, results: Path | None) -> list[str]:
    """Those files that no run or submission has written."""
    there = set(untracked)
    runs = {name.removesuffix(names.RESOLVED) for name in there if name.endswith(f"/{names.RESOLVED}")}
    left_out = {folder for folder in runs if f"{folder}{names.EVENTS}" in there}
    if results is not None and results != top and results.is_relative_to(top):
        left_out.add(f"{results.relative_to(top)}/")
    return [
        name
        for name in untracked
        if SUBMITTED not in Path(name).parts and not any(f"{folder}/" in left_out for folder in Path(name).parents)
    ]


def _check_size(top: Path, untracked: list[str]) -> None:
    sizes = {name: (top / name).lstat().st_size for name in untracked}
    if sum(sizes.values()) > _UNTRACKED_LIMIT:
        largest = max(sizes, key=lambda name: sizes[name])
        raise ConfigError(
            f"{top} holds {sum(sizes.values()) / 2**20:.0f} MiB that git neither tracks nor ignores, the largest being "
            f"{largest}, and a job takes a copy of the code along. Add what is no code to .gitignore"
        )
