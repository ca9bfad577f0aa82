"""git answers, and starts nothing that a checkout's config, its hooks or the environment name."""

import os
import subprocess
from pathlib import Path

import pytest

from phalanx.system.git import git

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A checkout with one commit."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "code.py").write_text("x = 1\n")
    for words in (("init", "-q"), ("add", "."), (*IDENTITY, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=folder, env=ENVIRON, check=True)
    return folder


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A program that leaves a file `ran` beside it."""
    program = tmp_path / "trap"
    program.write_text(f"#!/bin/sh\necho >> {tmp_path / 'ran'}\nexec cat\n")
    program.chmod(0o755)
    return program


ACTS = (
    ("status", "--porcelain"),
    ("ls-files", "--others"),
    ("diff", "HEAD"),
    ("update-ref", "refs/heads/other", "HEAD"),
    ("reset", "--quiet"),
)


def test_no_command_of_the_checkouts_config_or_hooks_is_run(repo: Path, trap: Path) -> None:
    config = {"core.fsmonitor": str(trap), "core.hooksPath": str(trap.parent / "hooks"), "core.pager": str(trap)}
    for name, value in config.items():
        subprocess.run(["git", "config", name, value], cwd=repo, env=ENVIRON, check=True)
    for folder in (trap.parent / "hooks", repo / ".git/hooks"):
        folder.mkdir(exist_ok=True)
        for hook in ("post-index-change", "reference-transaction"):
            (folder / hook).symlink_to(trap)
    ran = trap.parent / "ran"
    subprocess.run(["git", "status"], cwd=repo, env=ENVIRON, check=True, capture_output=True)
    assert ran.exists(), "a bare git falls into the trap"
    ran.unlink()
    (repo / "code.py").write_text("x = 2\n")
    assert all(git(repo, ENVIRON, *act) is not None for act in ACTS)
    assert not ran.exists()


def test_variables_of_git_do_not_count(repo: Path, trap: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "init", "-q", str(other)], env=ENVIRON, check=True)
    misled = {**ENVIRON, "GIT_DIR": str(other / ".git"), "GIT_EXTERNAL_DIFF": str(trap), "GIT_PAGER": str(trap)}
    assert git(repo, misled, "rev-parse", "--show-toplevel") == os.fsencode(f"{repo}\n")
    (repo / "code.py").write_text("x = 2\n")
    assert b"+x = 2" in (git(repo, misled, "diff") or b"")
    assert not (tmp_path / "ran").exists()


def test_nothing_is_fetched_unless_the_protocol_is_named(repo: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    subprocess.run(["git", "init", "-q", str(target)], env=ENVIRON, check=True)
    assert git(target, ENVIRON, "fetch", "--quiet", str(repo), "HEAD") is None
    assert git(target, ENVIRON, "fetch", "--quiet", str(repo), "HEAD", protocols="file") == b""
    assert git(target, ENVIRON, "rev-parse", "FETCH_HEAD") == git(repo, ENVIRON, "rev-parse", "HEAD")


def test_a_long_answer_is_cut_and_no_git_is_no_answer(repo: Path) -> None:
    assert len(git(repo, ENVIRON, "rev-parse", "HEAD", limit_bytes=5) or b"") == 6
    assert git(repo, ENVIRON, "rev-parse", "nothing") is None
    assert git(repo, {"PATH": "/nowhere"}, "rev-parse", "HEAD") is None
