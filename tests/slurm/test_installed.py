"""`phalanx submit` of an installed wheel, without a checkout: jobs take a copy of the package along."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.launch.commands import users_project
from tests.ranks import SMALL
from tests.slurm.queued_runs import held
from tests.slurm.slurm_lab import Desk, LabJob
from tests.wheel import Environment, built, copied, environment

RUIN = "raise SystemExit('this is not what was submitted')\n"


@pytest.fixture
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("installed")
    return environment(folder / "venv", str(built(copied(folder / "checkout"), folder)))


@pytest.fixture
def project(desk: Desk) -> Path:
    """A checkout of the user's, with a package called as a folder of ours."""
    folder = users_project.own_package(desk.folder / "project", "train")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=first")):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


def submit(installed: Environment, desk: Desk, folder: Path, *words: str) -> LabJob:
    command = (
        str(installed.phalanx),
        "submit",
        "--config-dir=conf",
        "experiment=curves",
        "train.epochs=1",
        *words,
        *SMALL,
    )
    done = desk.cluster.run(*command, cwd=folder, environ={"PYTHONPATH": "."})
    assert done.returncode == 0, done.stderr
    _, job, submission = done.stdout.splitlines()[0].split(maxsplit=2)
    return LabJob(desk.cluster, job, Path(submission))


def test_jobs_of_a_wheel_train_by_copies_of_it_and_of_the_users_package(
    installed: Environment, desk: Desk, project: Path
) -> None:
    """A run and a sweep; what is changed once they are submitted, on either side, changes nothing for them."""
    with held(desk) as hold:
        run = submit(installed, desk, project, "cluster.ranks_per_node=2", "run.name=one", f"--after={hold}")
        spread = ("--sweep", "optim.lr=1e-3,1e-2", "run.name=many", "cluster.ranks_per_node=1", "sweep.ranks=1")
        sweep = submit(installed, desk, project, *spread, f"--after={hold}")
        (installed.site / "phalanx" / "__init__.py").write_text(RUIN)
        (project / "train" / "curves.py").write_text(RUIN)
    recorded = json.loads((run.finish().folder / "environment.json").read_text())
    assert recorded["command"][0] == str(run.folder / "code" / "phalanx" / "train" / "main.py")
    assert {path.name for path in (run.folder / "code").iterdir()} == {"phalanx"}
    assert json.loads((sweep.finish().folder / "sweep.json").read_text())["state"] == "finished", sweep.log
