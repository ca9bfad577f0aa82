"""The house's own rules, held against its source."""

import ast
import os
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.ranks import ROOT

# From left to right, as data flows. A module imports from its own room and from those before it, and from no other.
ROOMS = {
    "ground": "allocator cause columns cores culprit escape files fits garbage hearing lease leftovers listening meter "
    "nearest nvml orphan outcome output own prose redact refusal company links room sight trouble",
    "config": "alias canonical code_hash compose composer config direction "
    "explain foreign former identity limits overrides place "
    "resolved root source target trust typed",
    "data": "rng data data.*",
    "models": "models models.*",
    "tasks": "tasks tasks.*",
    "world": "alarm exchange failure join logs network stop watch world",
    "maths": "admission buffers ema evaluate extra glance gradients nhwc optim optimizer_state own_average parallel "
    "precision progress schedule step tryout twice unchanged weights window",
    "record": "begin checkpoint environment fingerprint folder ledger resume sameness sinks sinks.*",
    "run": "build job loop main rehearse",
}
WITHOUT_TORCH = ("ground", "config")  # less what is imported where it is needed
EXAMINED = "launch/examine/"  # what the launcher starts in ranks, which have torch; its entry imports it late
MODULES = {
    ".".join(path.relative_to(ROOT / "train").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "train").rglob("*.py"))
    if path != ROOT / "train" / "__init__.py"
}
SOURCES = [path for room in ("train", "launch", "bench", "tests") for path in sorted((ROOT / room).rglob("*.py"))]


LAUNCH = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "launch").rglob("*.py"))}
SLOW = {"torch", "torchvision", "numpy", "hydra", "omegaconf", "yaml", "jinja2", "plotly", "optuna"}  # to import
FORKED = ("launch/preload.py", "launch/sweeping/warm.py")  # what ranks are forked from, which has torch
LATE = "launch/sweeping/sampling.py"  # what it is made of comes from Optuna


def room_of(module: str) -> str:
    rooms = [room for room, names in ROOMS.items() if any(fnmatchcase(module, name) for name in names.split())]
    assert len(rooms) == 1, f"train/{module.replace('.', '/')}.py belongs into one room of tests/test_house.py"
    return rooms[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: str) -> set[str]:
    """The modules of train/ that `module` imports anywhere in its text."""
    return imported(MODULES[module])


def imported(path: Path) -> set[str]:
    """The modules of train/ that a file imports anywhere in its text."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.removeprefix("train.") for name in names if name.startswith("train.")} & MODULES.keys()
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_from_left_to_right(module: str) -> None:
    order = list(ROOMS)
    for imported in imports(module):
        assert order.index(room_of(imported)) <= order.index(room_of(module)), f"{module} imports {imported}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    left = {module: imports(module) for module in MODULES}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_nothing_before_the_data_imports_torch() -> None:
    """So that a typo costs no seconds, and a login node without torch can read a config."""
    for module in MODULES:
        if room_of(module) in WITHOUT_TORCH:
            names = {alias.name.partition(".")[0] for node in _top_imports(module) for alias in _aliases(node)}
            assert not names & {"torch", "torchvision", "numpy"}, module


@pytest.mark.parametrize("path", LAUNCH.values(), ids=LAUNCH)
def test_the_launcher_answers_without_torch(path: Path) -> None:
    """It imports of train/ only what needs none, nothing slow before it is needed, and train/ knows nothing of it."""
    text = path.read_text(encoding="utf-8")
    assert "launch.sweeping.warm" not in text
    assert not any(
        node.module == "launch.sweeping.sampling" for node in _tops(path) if isinstance(node, ast.ImportFrom)
    )
    if path in {ROOT / name for name in (*FORKED, LATE)}:
        return
    assert not any(node.module == "launch.preload" for node in _tops(path) if isinstance(node, ast.ImportFrom))
    if path.is_relative_to(ROOT / EXAMINED) and path.name not in ("main.py", "__init__.py"):
        assert {room_of(module) for module in imported(path)} <= {*WITHOUT_TORCH, "record"}
        return
    assert {room_of(module) for module in imported(path)} <= set(WITHOUT_TORCH)
    if path.name != "main.py":  # the launcher starts ranks, and imports nothing of them
        assert "launch.examine" not in text
    assert not {alias.name.partition(".")[0] for node in _tops(path) for alias in _aliases(node)} & SLOW


@pytest.mark.parametrize("module", MODULES)
def test_what_runs_in_a_rank_knows_nothing_of_the_launcher(module: str) -> None:
    nodes = [node for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "launch" not in {alias.name.partition(".")[0] for node in nodes for alias in _aliases(node)}


def _top_imports(module: str) -> list[ast.Import | ast.ImportFrom]:
    return _tops(MODULES[module])


def _tops(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)]


def _aliases(node: ast.Import | ast.ImportFrom) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import) else [ast.alias(str(node.module))]


def test_no_module_has_the_name_of_one_in_the_standard_library() -> None:
    """A script's own folder comes first on the path, where such a module would be taken for the other."""
    tops = {module.partition(".")[0] for module in MODULES} | {path.stem for path in LAUNCH.values()}
    assert not tops & sys.stdlib_module_names
    assert not tops & {"hydra", "torch", "torchvision", "numpy", "omegaconf", "rich", "wandb", "safetensors", "yaml"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_what_could_run_code(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {alias.name for alias in _aliases(node)} & {
                "cPickle",
                "_pickle",
                "dill",
                "joblib",
                "cloudpickle",
            }
        if isinstance(node, ast.Call):
            assert not ast.unparse(node.func).startswith("pickle."), f"{path}:{node.lineno}"
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            assert given.get("allow_pickle") is not True
            if ast.unparse(node.func) in ("torch.load", "torch.jit.load", "torch.hub.load"):
                assert given.get("weights_only") is True, f"{path}:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_defaults_stand_in_conf_alone(module: str) -> None:
    """No config.get(key, default), and no default in the schema."""
    for call in _calls(module, "get", "setdefault", "getattr"):
        receiver = ast.unparse(call.args[0]) if ast.unparse(call.func) == "getattr" else ast.unparse(call.func)
        if "config" in receiver.lower():
            assert len(call.args) - (ast.unparse(call.func) == "getattr") < 2, f"{module}:{call.lineno}"
    if module == "config":
        calls = _calls(module, "field")
        assert not [call for call in calls if {word.arg for word in call.keywords} & {"default", "default_factory"}]


def _calls(module: str, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names:
            yield node


@pytest.mark.xdist_group("house")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_that_share_something_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """Such as a cluster. The id is what the process reads that hands tests out."""
    assert request.node.nodeid.endswith("@house")
