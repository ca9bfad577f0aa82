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

from tests.ranks import QUIET, ROOT, SMALL

LINKS = {"train": "../train", "launch": "../launch", "conf": "../conf", "slurm": "../slurm"}
RUIN = "raise SystemExit('the wrong {name} was imported')"
RUN = ("model=mlp", "model.hidden=[8]", "train.steps=2", "train.epochs=null", *SMALL)


def built(source: Path, folder: Path) -> Path:
    """The wheel of what git knows of the checkout, or of an sdist that was unpacked."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(pip, check=True, capture_output=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without what builds leave behind."""
    folder = tmp_path_factory.mktemp("checkout") / "phalanx"
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")):
        if name.partition("/")[0] not in ("tests", "bench") and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the wheel, beside an old argparse of somebody's."""
    folder = tmp_path_factory.mktemp("installed") / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (folder / "argparse.py").write_text(RUIN.format(name="argparse"))
    return folder


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """The folder of a training project as there are many."""
    for name in ("train", "launch", "conf", "slurm", "utils"):
        (tmp_path / f"{name}.py").write_text(RUIN.format(name=name))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/__init__.py").write_text(RUIN.format(name="models"))
    return tmp_path


def test_the_folders_of_the_package_are_links_that_git_keeps() -> None:
    listed = ["git", "-C", str(ROOT), "ls-files", "-s", *(f"phalanx/{name}" for name in LINKS)]
    lines = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    assert sorted((line.split()[0], line.split()[3]) for line in lines) == sorted(
        ("120000", f"phalanx/{name}") for name in LINKS
    )
    assert {name: os.readlink(ROOT / "phalanx" / name) for name in LINKS} == LINKS


def test_a_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"phalanx"}
    there = {
        path.relative_to(ROOT).as_posix()
        for top in ("phalanx", *(f"phalanx/{name}" for name in LINKS))
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


def test_nothing_of_ours_is_importable_by_any_other_name(site: Path, tmp_path: Path) -> None:
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} <= {"phalanx", "bin", "argparse.py"}
    look = "import importlib.util as u; print([n for n in ('train', 'launch', 'conf', 'slurm') if u.find_spec(n)])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({str(site)!r}); {look}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_command_trains_in_a_folder_with_the_users_own_train_and_launch(site: Path, users: Path) -> None:
    """By what pip makes the console script of; the checkout that tests run from is nowhere on the path."""
    start = f"import sys; sys.path.append({str(site)!r}); import phalanx; from phalanx.launch.cli import main\n"
    start += f"assert phalanx.__file__.startswith({str(site)!r}), phalanx.__file__\nmain()"
    command = [sys.executable, "-c", start, "run", "-n", "1", "run.name=r", *RUN]
    environ = {**os.environ, **QUIET, "PYTHONPATH": "."}
    done = subprocess.run(command, cwd=users, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = json.loads((users / "runs/r/environment.json").read_text())
    assert recorded["command"][0].startswith(str(site))


def test_a_checkout_within_another_uses_its_own_code(checkout: Path, tmp_path: Path) -> None:
    inner = tmp_path / "outer/within/phalanx"
    for place in (tmp_path / "outer", inner):
        shutil.copytree(checkout, place, symlinks=True)
    for tree in ("train/main.py", "launch/cli.py", "phalanx/compose/compose.py"):
        (tmp_path / "outer" / tree).write_text(RUIN.format(name=tree))
    for words in (("train/main.py", "--cfg", "job"), ("phalanx", "status")):
        done = subprocess.run(
            [sys.executable, str(inner / words[0]), *words[1:]],
            cwd=tmp_path / "outer",
            env={**os.environ, **QUIET, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
