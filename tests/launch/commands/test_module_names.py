"""What else lies on the path, whatever its name, is neither run in place of ours nor hidden by what lies beside ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ranks import QUIET, ROOT

_RUINS = "raise SystemExit('the wrong {name} was imported')"
_SCRIPTS = {
    "phalanx/train/main.py": ["--cfg", "job"],
    "phalanx": ["status", "--root=none"],
    "phalanx/__main__.py": ["-m", "launch.local.agent", "--help"],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages as pip lays them out, beside others whose names the standard library or the user has, too."""
    folder = tmp_path_factory.mktemp("somewhere") / "site-packages"
    shutil.copytree(ROOT / "phalanx", folder / "phalanx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("argparse", "dataclasses", "models"):
        (folder / f"{name}.py").write_text(_RUINS.format(name=name))
    return folder


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder of the user's with modules that have the names of our packages."""
    for name in ("train", "launch"):
        (tmp_path / f"{name}.py").write_text(_RUINS.format(name=name))
    (tmp_path / "models.py").write_text("MINE = True")
    return tmp_path


def started(*command: str, path: Path, cwd: Path) -> None:
    environ = {**os.environ, **QUIET, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]


@pytest.mark.parametrize("script", _SCRIPTS)
def test_scripts_run_ours_and_hide_nobodys(installed: Path, users: Path, script: str) -> None:
    started(str(installed / script), *_SCRIPTS[script], path=users, cwd=users)


def test_installed_command_runs_ours(installed: Path, users: Path) -> None:
    """It imports one name alone by the path, which nobody else has."""
    program = f"import sys; sys.path.append({str(installed)!r}); from phalanx.launch.cli import main; main()"
    started("-c", program, "status", "--root=none", path=users, cwd=users)
    assert 'phalanx = "phalanx.launch.cli:main"' in (ROOT / "pyproject.toml").read_text()


def test_users_modules_come_before_those_that_lie_beside_ours(installed: Path, users: Path) -> None:
    """In a rank and in what is started for it: the user's path, the standard library, and then the rest."""
    program = (
        "import runpy, sys; sys.argv = ['main.py', '--cfg', 'job']\n"
        f"sys.path[0] = {str(installed / 'phalanx' / 'train')!r}\n"
        f"try: runpy.run_path({str(installed / 'phalanx' / 'train' / 'main.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import models, phalanx\nassert models.MINE\n"
        f"assert phalanx.__path__[0].startswith({str(installed)!r})\n"
    )
    started("-c", program, path=users, cwd=users)
