"""Both recipes of a container copy all that the package is made of, agree with each other, and keep the image's PyTorch."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from phalanx.compose.compose import compose
from tests.ranks import ROOT

RECIPES = ROOT / "slurm/container"
DOCKERFILE, DEFINITION, IGNORED, INSTALL = (
    (RECIPES / name).read_text() for name in ("Dockerfile", "apptainer.def", "Dockerfile.dockerignore", "install.sh")
)


def test_both_copy_what_the_package_is_made_of_and_no_more() -> None:
    lines = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]
    assert (lines[0], lines[-1]) == ("*", "**/__pycache__")
    by_docker = {line.removeprefix("!") for line in lines[1:-1]}
    by_apptainer = {
        name: there for name, there in re.findall(r"^    (\S+) /opt/phalanx/(\S+)$", DEFINITION, re.MULTILINE)
    }
    assert by_docker == by_apptainer.keys()
    assert all(name == there for name, there in by_apptainer.items())
    assert all((ROOT / name).exists() for name in by_docker)
    links = {path.resolve() for path in (ROOT / "phalanx").iterdir() if path.is_symlink()}
    assert {path.name for path in links} | {"phalanx", ".path", "pyproject.toml", "setup.py"} <= by_docker
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], "LICENSE"} <= by_docker


def test_both_begin_with_one_image_which_is_that_of_the_cluster_and_install_the_same() -> None:
    of_docker, of_apptainer = (re.findall(r"\b(BASE|EXTRAS)=(\S+)", text) for text in (DOCKERFILE, DEFINITION))
    values = [(name, value) for name, value in of_docker if "example" not in value]
    assert values == [(name, value) for name, value in of_apptainer if "example" not in value]
    assert dict(values)["BASE"] == str(compose(["cluster=slurm"]).config.cluster.container).replace("#", "/")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(dict(values)["EXTRAS"].split(",")) <= extras.keys()
    assert 'install.sh "${EXTRAS}"' in DOCKERFILE
    assert 'install.sh "{{ EXTRAS }}"' in DEFINITION
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000:1000"]


PYTHON = """#!/bin/sh
case "$*" in
  *"pip list"*) echo torch==2.12 && echo click==8 ;;
  *"pip install"*)
    echo "$@" >{folder}/asked
    for word; do [ ! -f "$word" ] || cp "$word" {folder}/kept; done ;;
  *"import torch, torchvision"*) [ -e {folder}/asked ] && echo {after} || echo 2.12 ;;
esac
"""


@pytest.mark.parametrize(("after", "code"), [("2.12", 0), ("2.14", 1)])
def test_an_installation_that_exchanges_the_images_pytorch_fails(tmp_path: Path, after: str, code: int) -> None:
    """By a python3 that plays the one of an image: torch is another one once pip has installed something."""
    (tmp_path / "python3").write_text(PYTHON.format(folder=tmp_path, after=after))
    (tmp_path / "phalanx").write_text("#!/bin/sh\n")
    for name in ("python3", "phalanx"):
        (tmp_path / name).chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    command = ["sh", str(RECIPES / "install.sh"), "data,serve"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert "/opt/phalanx[data,serve]" in (tmp_path / "asked").read_text()
    assert (tmp_path / "kept").read_text() == "torch==2.12\n"
    assert ("the image had torch 2.12, and has 2.14 now" in ended.stderr) == bool(code)
