"""The house's own rules, held against its source."""

import ast
import functools
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.ranks import ROOT

# The folders of each tree, in the order in which data flows. A file imports from its own folder and from those before it.
ORDER = {
    "phalanx": "common system exit run_folder config targets compose deployment",
    "train": "loading prepared samplers schedules optim distributed sinks data ops models tasks parallel memory freezing "
    "checkpoint start_point evaluation stopping engine api deploy prepare main",
    "launch": "common host local doctor submission state search sweep reporting slurm commands cli",
}
FILES = {
    path.relative_to(ROOT).as_posix(): path
    for tree in ORDER
    for path in sorted((ROOT / tree).rglob("*.py"))
    if not any(part.is_symlink() for part in path.parents)
}
SOURCES = [*FILES.values(), *(path for tree in ("bench", "tests") for path in sorted((ROOT / tree).rglob("*.py")))]
PUBLIC = {
    f"phalanx/{name}.py" for name in ("data", "drawing", "models", "parallel", "samplers", "schedules", "tasks")
}  # names for configs
RANKS_START = {"launch/local/preload.py", "launch/sweep/fork_server.py"}  # what forks ranks, and has torch
IN_RANKS = ("launch/doctor/checks/", "launch/doctor/protocol/")  # what `phalanx doctor` runs in ranks, which have torch
LATE = "launch/search/samplers.py"  # what it is made of comes from Optuna
SLOW = {"torch", "torchvision", "numpy", "hydra", "omegaconf", "yaml", "jinja2", "plotly", "optuna"}  # to import
MOST_FILES = 13  # of a folder
MOST_ROOMS = {"phalanx": 8, "train": 23, "launch": 12}  # of a tree
MOST_LINES = {ast.ClassDef: 200, ast.FunctionDef: 60, ast.AsyncFunctionDef: 60}

pytestmark = pytest.mark.xdist_group("house")  # one process parses all files, once


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def nodes_of(path: Path) -> list[ast.Import | ast.ImportFrom | ast.Call]:
    """The imports and the calls that stand anywhere in a file."""
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]


def called(call: ast.Call) -> str:
    """The dotted name of what is called, from the first name on that is no expression."""
    names, node = [], call.func
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join(reversed([*names, node.id] if isinstance(node, ast.Name) else [*names, ""]))


def imports_of(name: str, nodes: Sequence[ast.AST] | None = None) -> set[str]:
    """The modules that a file imports: anywhere in its text, or by `nodes` alone. Ours begin with phalanx."""
    package = f"{name if name.startswith('phalanx/') else f'phalanx/{name}'}".split("/")[:-1]
    found: set[str] = set()
    for node in nodes_of(FILES[name]) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parts, *filter(None, [node.module])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and called(node).endswith("import_module"):
            found |= {str(word.value) for word in node.args if isinstance(word, ast.Constant)}
    return found


def at_once(name: str) -> set[str]:
    """The modules that a file imports before anything of it is called."""
    return imports_of(name, [*_run_at_once(parsed(FILES[name]).body)])


def _run_at_once(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """With those within `try`, `with` and `if`, but for what is there for type checkers alone."""
    for statement in statements:
        yield statement
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            yield from _run_at_once(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from _run_at_once(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _run_at_once(handler.body)


def place(module: str) -> tuple[str, str] | None:
    """The tree and the folder that a module of ours is in; None where it is another's, or a tree as a whole."""
    top, *rest = module.split(".")
    if top != "phalanx" or not rest:
        return None
    tree, *rest = rest if rest[0] in ORDER else ["phalanx", *rest]
    return (tree, rest[0]) if rest and rest[0] in ORDER[tree].split() else None


def place_of(name: str) -> tuple[str, str] | None:
    return place(".".join(["phalanx", *name.removeprefix("phalanx/").removesuffix(".py").split("/")]))


def test_imports_follow_the_order_of_the_folders() -> None:
    """Within a tree from left to right; from train/ and launch/ to phalanx/ alone."""
    for name in FILES:
        check_order(name)


def check_order(name: str) -> None:
    home = place_of(name)
    if home is None:
        assert name.endswith(("__init__.py", "__main__.py")) or name in PUBLIC, f"{name}: its folder is not in ORDER"
        return
    tree, folder = home
    order = ORDER[tree].split()
    public = {"phalanx", *(f"phalanx.{Path(file).stem}" for file in PUBLIC)}
    assert not imports_of(name) & public, f"{name} imports what is for users, by a name that hides where it stands"
    for module in imports_of(name):
        if (there := place(module)) is None:
            continue
        if there[0] == tree:
            assert order.index(there[1]) <= order.index(folder), f"{name} imports {module}"
        elif name not in RANKS_START:
            assert there[0] == "phalanx", f"{name} imports {module}"


def test_imports_are_relative_within_a_tree_and_absolute_across() -> None:
    for name, node in ((name, node) for name, path in FILES.items() for node in nodes_of(path)):
        tree = name.split("/")[0]
        if isinstance(node, ast.ImportFrom) and not node.level and (there := place(f"{node.module}.x")):
            assert there[0] != tree, f"{name}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(name.split("/")) - (tree == "phalanx"), f"{name}:{node.lineno} leaves its tree"


def test_no_folder_imports_itself_by_way_of_others() -> None:
    """Nor does a file."""
    names = {".".join(["phalanx", *n.removeprefix("phalanx/").removesuffix(".py").split("/")]): n for n in FILES}
    left = {module: imports_of(name) & names.keys() - {module} for module, name in names.items()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]
    assert not left


def test_a_tree_has_few_rooms() -> None:
    """Its folders and files, but for those that hand names on, those that import nothing of ours, and `__main__`."""
    for tree, most in MOST_ROOMS.items():
        files = [name for name in FILES.keys() - PUBLIC if name.startswith(f"{tree}/") and not name.endswith("__.py")]
        rooms = {name.split("/")[1] for name in files if name.count("/") > 1 or any(map(place, imports_of(name)))}
        assert len(rooms) <= most, f"{tree}: {sorted(rooms)}"


def test_a_folder_is_small_enough_to_be_read() -> None:
    paths = [path for tree in (*ORDER, "tests") for path in (ROOT / tree).rglob("*") if "__pycache__" not in path.parts]
    files = Counter(path.parent for path in paths if path.is_file())
    assert {folder: number for folder, number in files.items() if number > MOST_FILES} == {}


def test_a_class_and_a_function_are_short_enough_to_be_read() -> None:
    lines = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (int(node.end_lineno or 0) - node.lineno + 1, type(node))
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, (length, kind) in lines.items() if length > MOST_LINES[kind]} == {}


def test_no_function_assigns_a_name_of_its_module() -> None:
    """No module-level state: what changes is an object that somebody holds."""
    found = [
        f"{name}: {node.names}"
        for name, path in FILES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Global)
    ]
    assert found == []


def test_the_command_answers_without_torch() -> None:
    """What it imports at once is quick to import, and it imports nothing of what runs in ranks."""
    for name in FILES:
        if name.startswith(("phalanx/", "launch/")):
            check_quick(name)


def check_quick(name: str) -> None:
    forks = {"phalanx.launch.sweep.fork_server", "phalanx.launch.local.preload"}
    imported = at_once(name)
    assert not imported & forks or name in RANKS_START, name
    if name in RANKS_START or name == LATE or name.startswith(IN_RANKS):
        return
    assert "phalanx.launch.search.samplers" not in imported, name
    slow = SLOW if name.startswith("launch/") else {"torch", "torchvision", "numpy"}
    assert not {module.partition(".")[0] for module in imported} & slow, name


def test_no_file_of_ours_has_the_name_of_a_module_of_python() -> None:
    """train/main.py and launch/doctor/main.py are run as files too, whose folder Python puts first on the path."""
    beside = {path.stem for name, path in FILES.items() if Path(name).parent.as_posix() in ("train", "launch/doctor")}
    assert not beside & (sys.stdlib_module_names | SLOW)


def test_nothing_unpickles_what_could_run_code() -> None:
    for path, node in ((source, node) for source in SOURCES for node in nodes_of(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = node.names if isinstance(node, ast.Import) else [ast.alias(str(node.module))]
            unsafe = {"cPickle", "_pickle", "dill", "joblib", "cloudpickle"}
            assert not {alias.name for alias in names} & unsafe, path
            assert not [alias for alias in node.names if alias.asname and "pickle" in alias.name], path
        if isinstance(node, ast.ImportFrom):
            taken = {f"{node.module}.{alias.name}" for alias in node.names}
            assert not taken & {"pickle.load", "pickle.loads", "torch.load", "torch.jit.load", "torch.hub.load"}, path
        if isinstance(node, ast.Call):
            assert not called(node).startswith("pickle."), f"{path}:{node.lineno}"
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            assert given.get("allow_pickle") is not True, f"{path}:{node.lineno}"
            if called(node) in ("torch.load", "torch.jit.load", "torch.hub.load"):
                assert given.get("weights_only") is True, f"{path}:{node.lineno}"


def test_every_folder_of_tests_is_run_by_pytest_or_by_a_step_of_its_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = {*project["tool"]["pytest"]["ini_options"]["testpaths"], "tests/slurm"}
    found = {path.relative_to(ROOT).parts[:2] for path in (ROOT / "tests").rglob("test_*.py")}
    assert {"/".join(parts) for parts in found} == named
    assert "pytest tests/slurm\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_defaults_stand_in_conf_alone() -> None:
    """No config.get(key, default), and no default in the schema."""
    for name in FILES:
        if not name.startswith("launch/"):
            check_defaults(name)


def check_defaults(name: str) -> None:
    for call in _calls(name, "get", "setdefault", "getattr"):
        receiver = ast.unparse(call.args[0]) if called(call) == "getattr" else ast.unparse(call.func)
        if "config" in receiver.lower():
            assert len(call.args) - (called(call) == "getattr") < 2, f"{name}:{call.lineno}"
    if name == "phalanx/config/schema.py":
        calls = _calls(name, "field")
        assert not [call for call in calls if {word.arg for word in call.keywords} & {"default", "default_factory"}]


def _calls(name: str, *functions: str) -> Iterator[ast.Call]:
    for node in nodes_of(FILES[name]):
        if isinstance(node, ast.Call) and called(node).rpartition(".")[2] in functions:
            yield node


def test_files_that_our_pages_name_are_there() -> None:
    """As links, and as paths in backquotes."""
    invented = ("lenet", "NAME", "curves", "mine")  # what a page tells its reader to write
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("slurm/*.md")):
        text = page.read_text(encoding="utf-8")
        named = [page.parent / link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
        if page.name != "CHANGELOG.md":  # which tells of what there was
            named += [
                ROOT / path for path in re.findall(r"`((?:conf|launch|phalanx|slurm|tests|train)/[\w/.]+)`", text)
            ]
        missing = [path for path in named if not path.exists() and not any(word in path.name for word in invented)]
        assert not missing, f"{page.name} names {missing}"


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_that_share_something_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """Such as a cluster. The id is what the process reads that hands tests out."""
    assert request.node.nodeid.endswith("@house")
