"""Several people on one cluster: what one may not read or end is said to the other, and ends no verb."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import ROOT, SMALL, quoted
from tests.slurm.slurm_lab import Cluster

TINY = ("model=mlp", "model.hidden=[8]", "train.steps=2", "cluster.ranks_per_node=1", *SMALL)
OTHER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def shared(cluster: Cluster) -> Iterator[Path]:
    """A folder that everybody sees, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="phalanx-users-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def open_to_all(path: Path) -> bool:
    return all(found.stat().st_mode & 0o001 for found in (path, *path.resolve().parents))


def python() -> str:
    """A Python that another user may execute, of this version and with the packages that are installed here."""
    if not all(map(open_to_all, (ROOT, Path(sysconfig.get_path("purelib"))))):
        pytest.skip("the checkout or the environment lies in a folder that is closed to other users")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for found in map(Path, (sys.executable, f"/usr/bin/{version}")):
        if found.exists() and open_to_all(found):
            return str(found)
    pytest.skip("no Python of this version that another user may execute")


def test_another_user_submits_sees_and_is_told_what_is_not_theirs(cluster: Cluster, shared: Path) -> None:
    """A run that was made with umask 077 is closed to them, and all others are shown."""
    path = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}", "HOME": "/nonexistent"}
    theirs = shared / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    closed = (f"run.root={quoted(str(shared / 'runs'))}", "run.name=closed")
    submit = (sys.executable, "-m", "phalanx.launch.cli", "submit")
    ours = cluster.run(*submit, *closed, *TINY, cwd=shared, environ={"PYTHONPATH": str(ROOT)})
    assert ours.returncode == 0, ours.stderr

    def other(*words: str) -> "subprocess.CompletedProcess[str]":
        return cluster.run(*OTHER, python(), "-m", "phalanx.launch.cli", *words, cwd=theirs, environ=path)

    own = other("submit", f"run.root={quoted(str(theirs / 'runs'))}", "run.name=own", *TINY)
    assert own.returncode == 0, own.stderr
    for done in (ours, own):
        job = done.stdout.split()[1]
        cluster.until(lambda job=job: cluster.state(job) not in ("PENDING", "RUNNING", "COMPLETING"), 180.0)  # type: ignore[misc]
        assert cluster.state(job) == "COMPLETED", "".join(log.read_text() for log in shared.rglob("slurm-*.out"))
    for entry in [shared / "runs" / "closed", *(shared / "runs" / "closed").rglob("*")]:
        entry.chmod(entry.stat().st_mode & 0o700)  # as umask 077 leaves it
    (shared / "runs").chmod(0o755)
    mine = other("status", "--root", str(theirs / "runs"))
    assert (mine.returncode, mine.stdout.splitlines()[1].split()[:2]) == (0, ["own", "finished"])
    for verb in ("status", "stop", "cancel", "logs"):
        told = (
            other(verb, "closed", "--root", str(shared / "runs"))
            if verb != "status"
            else other(verb, "--root", str(shared / "runs"))
        )
        assert told.returncode == (0 if verb == "status" else 2), told.stderr
        assert "Traceback" not in told.stderr
