"""The cluster of these tests: started once, ended with everything that runs on it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.slurm.slurm_lab import CLUSTER, Cluster, Desk
from tests.warm_command import CommandServer


@pytest.fixture(scope="session")
def started() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="phalanx-slurm-"))
    folder.chmod(0o755)  # munged wants a socket that everybody reaches, which a folder of pytest's is not
    cluster = Cluster(folder / "lab")
    up = cluster.command("up", "--nodes", "4", "--gpus", "2")
    if up.returncode:
        shutil.rmtree(folder)
        pytest.skip(f"no Slurm here: {up.stderr[-4000:]}")
    commands = CommandServer([str(CLUSTER), "run"], {**os.environ, "LAB_DIR": str(cluster.folder)})
    yield replace(cluster, commands=commands)
    commands.close()
    assert cluster.command("down").returncode == 0
    folder.rmdir()


@pytest.fixture
def cluster(started: Cluster) -> Iterator[Cluster]:
    """The cluster with all nodes idle, before and after."""
    yield started
    started.rest()


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Desk:
    return Desk(cluster, tmp_path)
