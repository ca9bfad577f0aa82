"""What users import and what configs name stands in phalanx itself, and costs nothing until it is used."""

import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from torch import nn

import phalanx
from phalanx.compose.alias import documented_name
from phalanx.config.moved_names import MOVED, current_name, find_old_import
from phalanx.exit.codes import ConfigError
from phalanx.targets.check_targets import check_targets
from phalanx.targets.instantiate import Targets
from phalanx.train.tasks.task import Task
from tests.ranks import ROOT

MODULES = [
    *("phalanx", "phalanx.models", "phalanx.data", "phalanx.tasks", "phalanx.schedules", "phalanx.samplers"),
    "phalanx.parallel",
]
NAMES = [f"{module}.{name}" for module in MODULES for name in import_module(module).__all__]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_it_is_called(name: str) -> None:
    """For who runs it as for who only reads the source: a type checker, an editor, a run's digest."""
    module, _, last = name.rpartition(".")
    found = getattr(import_module(module), last)
    assert found.__name__ == last
    assert documented_name(name) == f"{found.__module__}.{last}"
    assert last in dir(import_module(module))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    for module in map(import_module, MODULES):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Nothing'"):
            module.Nothing  # noqa: B018
    assert not hasattr(phalanx, "__path_of_nothing__")


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """An imported module becomes an attribute of its package: phalanx.run would be it, and no function any more."""
    assert not {found.name for found in pkgutil.iter_modules(phalanx.__path__)} & {*phalanx.__all__}
    for module in ("phalanx.launch.commands.run", "phalanx.train.main", "phalanx.train.api.run"):
        import_module(module)
    assert callable(phalanx.run)


def test_importing_phalanx_imports_nothing_that_takes_time() -> None:
    slow = ("torch", "numpy", "hydra", "omegaconf", "yaml", "click", "rich", "asyncio")
    look = f"import {', '.join(MODULES)}, sys; sys.exit(str([name for name in {slow} if name in sys.modules] or ''))"
    done = subprocess.run(
        [sys.executable, "-c", look], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.stderr == b"\n", done.stderr


def test_configs_of_ours_name_public_names_alone() -> None:
    found = set(targets_in(yaml.safe_load(path.read_text()) for path in (ROOT / "conf").rglob("*.yaml")))
    ours = {name for name in found if name.startswith("phalanx.")}
    assert ours <= set(NAMES)
    assert "phalanx.tasks.Classification" in ours
    assert set(MOVED.values()) <= set(NAMES)
    assert not {name for name in found if name.startswith(("train.", "launch."))}


def targets_in(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (str(value) for name, value in node.items() if name == "_target_")
        node = node.values()
    if not isinstance(node, str) and hasattr(node, "__iter__"):
        for value in node:
            yield from targets_in(value)


IMPORTS = {
    "from train.tasks.task import Task": "from phalanx import Task",
    "from train.tasks.task import (\n    Ratio,\n    Task,\n)": "from phalanx import Ratio, Task",
    "import train.tasks.task as tasks": "from phalanx.train.tasks import task as tasks",
    "import train.tasks.task": "from phalanx.train.tasks import task",
    "import torch, train.tasks.task": "from phalanx.train.tasks import task",
    "from train.sinks.sink import Sink as Tracker": "from phalanx import Sink as Tracker",
    "from train.models.mlp import MLP": "from phalanx.models import MLP",
    "def late():\n    from train.data.augment import Augment, ShiftRotate\nlate()": (
        "from phalanx import Augment; from phalanx.data import ShiftRotate"
    ),
    "from launch.cli import main": "from phalanx.launch.cli import main",
    "from launch.runs import find": None,
    "import launch.runs": None,
}


@pytest.mark.parametrize("beside", ["nothing", "a train.py", "the checkout"])
@pytest.mark.parametrize("line", IMPORTS)
def test_a_users_import_from_before_is_told_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, beside: str
) -> None:
    """Also where the user has a train.py of another kind, and where the checkout, which has a train/, is on the path."""
    file = tmp_path / "former.py"
    file.write_text(f"from torch import nn\n{line}\nclass Net(nn.Linear): ...\n")
    monkeypatch.setattr(
        sys, "path", [str(tmp_path), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    )
    for name in [name for name in sys.modules if name.partition(".")[0] in ("train", "launch", "former")]:
        monkeypatch.delitem(sys.modules, name)
    if beside == "a train.py":
        for name in ("train", "launch"):
            (tmp_path / f"{name}.py").write_text("MINE = True\n")
    if beside == "the checkout":
        sys.path.append(str(ROOT))
    with pytest.raises(ConfigError) as refused:
        Targets((nn.Module, Task), None).check({"_target_": "former.Net"}, "model", nn.Module)
    where = f"{file}:{3 if line.startswith('def') else 2}"
    assert str(refused.value).startswith(f"model._target_=former.Net: {where} imports ")
    now = IMPORTS[line]
    assert str(refused.value).endswith(f"Write there: {now}" if now else "listed in README.md, and that is not")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("train", "launch", "former")]:
        del sys.modules[name]


OLD = "from train.tasks.task import Task\n"
FILES = {
    OLD: "task._target_=mine.T: {folder}/mine.py:1 imports train.tasks.task, and all of Phalanx is in the package phalanx "
    "now. Write there: from phalanx import Task",
    f"import torch\n{OLD}class T(Task): ...\n": "mine.py:2 imports",
    f"try:\n    from phalanx import Task\nexcept ImportError:\n    {OLD}": None,
    "from phalanx import Task\n": None,
    "from .train.tasks.task import Task\n": None,
    "from train.mine import Task\n": None,
    "this is no Python": None,
}


@pytest.mark.parametrize("source", FILES)
def test_an_import_from_before_is_found_where_nothing_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """As by `phalanx submit` on a login node; what may be meant for both versions, or is the user's own, is let through."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "train").mkdir()
    for name in ("__init__", "mine"):
        (tmp_path / "train" / f"{name}.py").touch()
    found, config = FILES[source], {"task": {"_target_": "mine.T"}}
    if found is None:
        check_targets([config])
        return
    with pytest.raises(ConfigError, match=re.escape(found.format(folder=tmp_path))):
        check_targets([config])


def test_a_target_from_before_is_found_where_nothing_can_be_imported() -> None:
    """At any depth."""
    with pytest.raises(ConfigError) as refused:
        check_targets([{"data": {"train": {"views": [{"_target_": "train.data.digits.Digits"}]}}}])
    key = "data.train.views.0._target_"
    assert (
        str(refused.value)
        == f"{key}=train.data.digits.Digits is called phalanx.data.Digits now. Type {key}=phalanx.data.Digits"
    )


def test_a_target_from_before_that_was_never_public_is_told_where_the_public_ones_are() -> None:
    with pytest.raises(ConfigError, match=re.escape("is in the package phalanx now. Type a name of phalanx.models")):
        Targets((nn.Module, Task), None).check({"_target_": "train.data.source.Source"}, "data", nn.Module)


def test_a_users_installed_train_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in site-packages beside our package, as its own package `train`."""
    for name, text in (
        ("train/__init__.py", ""),
        ("train/blocks.py", "X = 1\n"),
        ("mynet.py", "from train.blocks import X\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("phalanx.config.moved_names.PACKAGE", tmp_path / "phalanx")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_old_import("mynet") is None
    assert current_name("train.models.mlp.MLP") == "phalanx.models.MLP"
    (tmp_path / "train/models").mkdir()
    (tmp_path / "train/models/mlp.py").touch()
    assert current_name("train.models.mlp.MLP") is None
