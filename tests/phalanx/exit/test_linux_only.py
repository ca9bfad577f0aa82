"""On another system than Linux one line says so, and nothing is imported that the system does not have."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.ranks import QUIET, ROOT
from tests.wheel import copied

LACKING = ("fcntl", "resource", "termios", "pwd", "grp")  # as on Windows
STARTS = {
    "phalanx": "from phalanx.launch.cli import main; main()",
    "python -m phalanx": "runpy.run_module('phalanx', run_name='__main__', alter_sys=True)",
    "train/main.py": f"runpy.run_path({str(ROOT / 'train/main.py')!r}, run_name='__main__')",
    "python -m phalanx.train.main": "runpy.run_module('phalanx.train.main', run_name='__main__', alter_sys=True)",
}


@pytest.mark.parametrize("system", ["darwin", "win32"])
@pytest.mark.parametrize("start", STARTS)
def test_another_system_is_told_in_a_line(start: str, system: str) -> None:
    program = (
        f"import runpy, sys; sys.platform = {system!r}; sys.modules.update(dict.fromkeys({LACKING}))\n{STARTS[start]}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    told = f"error: Phalanx runs on Linux only, and this is {system}. On Windows type it in WSL\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_a_checkout_on_windows_which_has_files_in_place_of_links_says_so_too(tmp_path: Path) -> None:
    checkout = copied(tmp_path / "phalanx")
    for link in [path for path in (checkout / "phalanx").iterdir() if path.is_symlink()]:
        link.unlink()
        link.write_text(f"../{link.name}")
    main = str(checkout / "train/main.py")
    program = f"import runpy, sys; sys.platform = 'win32'; runpy.run_path({main!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_pip_and_the_readme_say_so() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Operating System :: POSIX :: Linux" in project["classifiers"]
    install = (ROOT / "README.md").read_text().partition("pip install -e .")[2].partition("\n## ")[0]
    assert "runs on Linux only" in install
