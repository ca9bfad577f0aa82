"""What pip installs is one package, which trains whatever else lies on the path."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.launch.commands import users_project
from tests.ranks import ROOT, SMALL
from tests.wheel import Environment, built, copied, environment

pytestmark = pytest.mark.xdist_group("installed")  # one process builds the wheel and installs it, once

LINKS = {
    "phalanx/train": "../train",
    "phalanx/launch": "../launch",
    "phalanx/conf": "../conf",
    "phalanx/slurm": "../slurm",
    ".path/phalanx": "../phalanx",
}
RUIN = "raise SystemExit('the wrong {name} was imported')"
TINY = ("model=mlp", "model.hidden=[8]", "train.steps=2", "train.epochs=null", *SMALL)
BEFORE = "digits-6d73c544"  # a run in tests/fixtures


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("checkout") / "phalanx")


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel beside an argparse of somebody's, as an old one from PyPI that others depend on."""
    made = environment(tmp_path_factory.mktemp("installed") / "venv", str(wheel))
    (made.site / "argparse.py").write_text(RUIN.format(name="argparse"))
    return made


@pytest.fixture(scope="module")
def editable(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment(tmp_path_factory.mktemp("editable") / "venv", "-e", str(checkout))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return users_project.made(tmp_path)


def test_the_folders_of_the_package_are_links_that_git_keeps() -> None:
    listed = ["git", "-C", str(ROOT), "ls-files", "-s", *LINKS]
    lines = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    assert sorted((line.split()[0], line.split()[3]) for line in lines) == sorted(("120000", name) for name in LINKS)
    assert {name: os.readlink(ROOT / name) for name in LINKS} == LINKS


def test_a_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"phalanx"}
    there = {
        path.relative_to(ROOT).as_posix()
        for top in ("phalanx", *(name for name in LINKS if name.startswith("phalanx/")))
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".yaml", ".html", ".sbatch", ".bash", ".typed")
    }
    assert names == there


def test_a_wheel_of_the_sdist_is_the_same_list_of_files(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    build = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=checkout, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = built(source, tmp_path / "again")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_a_source_whose_links_came_as_plain_files_is_not_built(tmp_path: Path) -> None:
    """As pip unpacks a zip: what it built would hold no training."""
    shutil.copy2(ROOT / "setup.py", tmp_path)
    (tmp_path / ".path").mkdir()
    (tmp_path / ".path/phalanx").write_text("../phalanx")
    refused = subprocess.run([sys.executable, "setup.py", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("phalanx/train and the three links beside it came as plain files")


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_nothing_of_ours_is_importable_by_any_other_name(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Whatever pip was told: a wheel, or `pip install -e .`, with which the checkout is not on the path."""
    made: Environment = request.getfixturevalue(kind)
    look = "import importlib.util as u, phalanx.train; "
    look += "print([n for n in ('train', 'launch', 'conf', 'slurm', 'tests', 'bench') if u.find_spec(n)])"
    done = made.run(made.python, "-c", look, cwd=tmp_path, environ={"PYTHONPATH": ""})
    assert done.stdout == "[]\n", done.stderr


def test_an_editable_install_puts_a_folder_on_the_path_that_holds_the_package_alone(
    editable: Environment, checkout: Path
) -> None:
    """By a line of a .pth file, which type checkers and editors follow, as they do not follow an import hook."""
    (file,) = editable.site.glob("__editable__*.pth")
    assert file.read_text().splitlines() == [str(checkout / ".path")]
    assert [path.name for path in (checkout / ".path").iterdir() if not path.name.endswith(".egg-info")] == ["phalanx"]


@pytest.mark.parametrize("kind", ["installed", "editable"])
@pytest.mark.parametrize("where", ["outputs", "beside the checkout"])
def test_a_folder_called_phalanx_is_no_package(
    kind: str, where: str, checkout: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One of the user's, such as of outputs, and a checkout that was cloned into the folder where one works."""
    made: Environment = request.getfixturevalue(kind)
    (tmp_path / "phalanx" / "launch").mkdir(parents=True)
    (tmp_path / "phalanx.yaml").write_text("a: 1\n")
    cwd = tmp_path if where == "outputs" else checkout.parent
    imported = made.run(made.python, "-c", "from phalanx import ConfigError; import phalanx.launch.cli", cwd=cwd)
    started = made.run(made.phalanx, "run", "--dry-run", "-n", "1", cwd=cwd)
    composed = made.run(made.python, "-m", "phalanx.train.main", "--cfg", "job", cwd=cwd)
    for done in (imported, started, composed):
        assert (done.returncode, done.stderr) == (0, "")


def test_the_command_trains_in_a_folder_with_the_users_own_train_and_launch(
    installed: Environment, project: Path
) -> None:
    """By the console script; the checkout that tests run from is nowhere on the path."""
    done = installed.run(installed.phalanx, "run", "-n", "1", "run.name=r", *TINY, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = json.loads((project / "runs/r/environment.json").read_text())
    assert recorded["command"][0].startswith(str(installed.site))
    assert users_project.executed(project) == ""


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("report", BEFORE),
        ("logs", BEFORE),
        ("cancel", "--help"),
        ("run", "--dry-run", "-n", "1"),
        ("submit", "--dry-run", "cluster.ranks_per_node=1", *TINY),
        ("submit", "--dry-run", "--sweep", "cluster.ranks_per_node=1", "optim.lr=1,2", *TINY),
        ("stop", "--help"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_no_verb_executes_a_file_of_the_users(installed: Environment, project: Path, words: tuple[str, ...]) -> None:
    shutil.copytree(ROOT / "tests" / "fixtures" / "before_one_package", project / "runs")
    done = installed.run(installed.phalanx, *words, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert users_project.executed(project) == ""


TORCHRUN = ("python", "-m", "torch.distributed.run", "--nproc_per_node=1")
STARTS = {
    "torchrun train/main.py": (*TORCHRUN, "{checkout}/train/main.py", *TINY),
    "torchrun -m": (*TORCHRUN, "-m", "phalanx.train.main", "--cfg", "job"),
    "installed train/main.py": ("python", "{site}/phalanx/train/main.py", "--cfg", "job"),
    "python -m": ("python", "-m", "phalanx.train.main", "--cfg", "job"),
    "python -m phalanx": ("python", "-m", "phalanx", "status"),
    "sweep": ("phalanx", "sweep", "sweep.ranks=1", "optim.lr=1e-3,1e-2", *TINY),
    "doctor": ("phalanx", "doctor", "-n", "1"),
}


@pytest.mark.parametrize("start", STARTS)
def test_no_start_of_ranks_executes_a_file_of_the_users(
    installed: Environment, checkout: Path, project: Path, start: str
) -> None:
    command = [word.format(checkout=checkout, site=installed.site) for word in STARTS[start]]
    done = installed.run(*command, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert users_project.executed(project) == ""


@pytest.mark.parametrize("start", ["phalanx run -n 1", "python {checkout}/train/main.py data.workers=1"])
def test_a_users_train_folder_trains_beside_a_checkout(
    editable: Environment, checkout: Path, tmp_path: Path, start: str
) -> None:
    """One without __init__.py, before which a package of ours would come; in ranks and in their data workers."""
    users_project.own_package(tmp_path, "train")
    words = ("--config-dir=conf", "experiment=curves", "train.epochs=1", "run.name=own", *SMALL)
    done = editable.run(*start.format(checkout=checkout).split(), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs/own/summary.json").exists()


@pytest.fixture(scope="module")
def nested(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout within another, of which no file can be executed."""
    outer = tmp_path_factory.mktemp("nested") / "outer"
    for place in (outer, outer / "within/phalanx"):
        shutil.copytree(checkout, place, symlinks=True)
    for tree in ("train", "launch", "phalanx"):
        for file in (outer / tree).rglob("*.py"):
            file.write_text(RUIN.format(name=file))
    return outer / "within/phalanx"


@pytest.mark.parametrize("where", ["train", "../..", "../../.."])
@pytest.mark.parametrize(
    "words",
    [
        ("{inner}/train/main.py", "--cfg", "job"),
        ("{inner}/phalanx", "run", "--dry-run", "-n", "1"),
        ("{inner}/phalanx", "-m", "launch.local.agent", "--help"),
    ],
    ids=["train/main.py", "phalanx", "agent"],
)
def test_a_checkout_within_another_uses_its_own_code(
    installed: Environment, nested: Path, where: str, words: tuple[str, ...]
) -> None:
    """From any directory, also where the path names another one."""
    command = [word.format(inner=nested) for word in words]
    done = installed.run("python", *command, cwd=nested / where, environ={"PYTHONPATH": str(nested.parents[1])})
    assert done.returncode == 0, done.stderr
    assert words[1] != "run" or f" {nested}/" in done.stdout
