"""The code that a job takes along is what git knows, whatever state the checkout is in, and nothing that runs left."""

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from phalanx.launch.submission.snapshot import copy_checkout
from phalanx.run_folder.environment import describe

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, env=ENVIRON, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def _detached(repo: Path) -> Path:
    git(repo, "checkout", "-q", "--detach")
    return repo


def _at_a_tag(repo: Path) -> Path:
    git(repo, "tag", "v1")
    git(repo, "checkout", "-q", "v1")
    return repo


def _branch_like_a_tag(repo: Path) -> Path:
    git(repo, "tag", "v1")
    git(repo, "checkout", "-q", "-b", "v1")
    return repo


def _branch_like_head(repo: Path) -> Path:
    git(repo, "update-ref", "refs/heads/HEAD", "HEAD")
    git(repo, "symbolic-ref", "HEAD", "refs/heads/HEAD")
    return repo


def _worktree(repo: Path) -> Path:
    git(repo, "worktree", "add", "-q", "--detach", "../tree")
    return repo.parent / "tree"


def _shallow(repo: Path) -> Path:
    git(repo, "commit", "-q", "--allow-empty", "-m", "second")
    git(repo.parent, "clone", "-q", "--depth=1", f"file://{repo}", "shallow")
    return repo.parent / "shallow"


def _submodule(repo: Path) -> Path:
    outer = repo.parent / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "submodule", "--quiet", "add", str(repo), "sub")
    git(outer / "sub", "checkout", "-q", "--detach")  # as `git submodule update` leaves it
    return outer / "sub"


def _unborn(repo: Path) -> Path:
    git(repo, "checkout", "-q", "--orphan", "new")
    return repo


def _without_objects(repo: Path) -> Path:
    """As where alternates lead to a disk that is not mounted."""
    (repo / ".git" / "objects").rename(repo.parent / "away")
    (repo / ".git" / "objects").mkdir()
    return repo


STATES: Mapping[str, Callable[[Path], Path]] = {
    function.__name__.lstrip("_"): function
    for function in (
        *(_detached, _at_a_tag, _branch_like_a_tag, _branch_like_head, _worktree),
        *(_shallow, _submodule, _unborn, _without_objects),
    )
}


@pytest.mark.parametrize("state", STATES)
def test_git_tells_the_same_of_the_copy_whatever_state_the_checkout_is_in(state: str, repo: Path) -> None:
    top = STATES[state](repo)
    (top / "code.py").write_text("x = 2\n")
    copy_checkout(top, repo.parent / "copy", None, ENVIRON)
    assert (repo.parent / "copy" / "code.py").read_text() == "x = 2\n"
    here, there = (describe([], ENVIRON, folder)["git"] for folder in (top, repo.parent / "copy"))
    if state == "without_objects":
        assert there is None
    else:
        assert there == here
        assert here is None if state == "unborn" else "+x = 2" in here["diff"]


def test_a_checkout_of_somebody_else_ends_no_run(repo: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    for path in (repo, *repo.rglob("*")):
        os.lchown(path, 65534, 65534)
    assert describe([], ENVIRON, repo)["git"] is None


def test_a_copy_holds_nothing_that_runs_and_submissions_left(repo: Path) -> None:
    """Though git ignores none of it; also within a submodule."""
    inner = _worktree(repo)
    inner.rename(repo / "inner")
    git(repo, "worktree", "repair", str(repo / "inner"))
    for top in (repo, repo / "inner"):
        for left in ("runs/.submitted/a-1/code/big", "old/.submitted/a-1/words", "old/a/checkpoints/step_1/big"):
            (top / left).parent.mkdir(parents=True)
            (top / left).touch()
        for name in ("resolved.yaml", "events.jsonl"):
            (top / "old/a" / name).touch()
        git(top / "runs/.submitted/a-1/code", "init", "-q")  # as a copy is
        for kept in ("new.py", "conf/resolved.yaml"):
            (top / kept).parent.mkdir(exist_ok=True)
            (top / kept).touch()
    (repo / "runs" / "note").touch()
    copy_checkout(repo, repo.parent / "copy", repo / "runs", ENVIRON)
    found = [path.relative_to(repo.parent / "copy") for path in (repo.parent / "copy").rglob("*") if path.is_file()]
    names = sorted(str(path) for path in found if ".git" not in path.parts)
    own = ["code.py", "conf/resolved.yaml", "new.py"]
    assert names == sorted([*own, *(f"inner/{name}" for name in own)])
