"""A folder of a training project as there are many: its modules have names that ours have or had."""

import shutil
from pathlib import Path

from tests.ranks import ROOT

_MODULES = ("train", "launch", "conf", "slurm", "utils", "config", "data", "tasks", "commands", "models/__init__")
_TELLS = """
with open({told!r}, "a") as told:
    told.write({name!r} + "\\n")
raise SystemExit("{name} is the user's and was imported")
"""


def made(folder: Path) -> Path:
    """Where each module leaves its name in `executed` when it is imported, and ends whoever does so."""
    for name in _MODULES:
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_TELLS.format(told=str(folder / "executed"), name=name))
    return folder


def executed(folder: Path) -> str:
    file = folder / "executed"
    return file.read_text() if file.exists() else ""


def own_package(folder: Path, name: str) -> Path:
    """The package of the README's example by the name `name`, without __init__.py, and its config folder."""
    shutil.copytree(ROOT / "docs" / "own_package", folder, dirs_exist_ok=True)
    (folder / "mypkg").rename(folder / name)
    (folder / name / "__init__.py").unlink()
    config = folder / "conf" / "experiment" / "curves.yaml"
    config.write_text(config.read_text().replace("mypkg.", f"{name}."))
    return folder
