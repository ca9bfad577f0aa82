"""The layout of a run folder is written down once, and is what it says there, whatever that is."""

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx.launch.common import sweep_folder
from phalanx.run_folder import names
from tests.ranks import QUIET, ROOT, SMALL, Nursery
from tests.warm_command import run_warm

TREES = ("phalanx", "train", "launch")
HOME = ROOT / "phalanx/run_folder/names.py"
HOMES = (HOME, ROOT / "launch/common/sweep_folder.py")
FILES = [
    path
    for tree in TREES
    for path in sorted((ROOT / tree).rglob("*.py"))
    if path not in HOMES and not any(part.is_symlink() for part in path.parents)
]
TEXTS = {name: value for name, value in vars(names).items() if isinstance(value, str) and name.isupper()}
OF_SWEEP = {name: value for name, value in vars(sweep_folder).items() if isinstance(value, str) and name.isupper()}
SUFFIXED = [value for value in (*TEXTS.values(), *OF_SWEEP.values()) if "." in value and " " not in value]
FOLDERS = [
    *(names.CHECKPOINTS, names.LEASE, names.LOGS, names.WANDB, names.TENSORBOARD, names.RUN_ID),
    *(sweep_folder.OUTPUT, sweep_folder.WORKERS),
]
OWN = [name for name in FOLDERS if name != names.WANDB]  # it has a folder of this name elsewhere, and keys
SLASHED = re.compile(rf"({'|'.join(FOLDERS)})/|/({'|'.join(OWN)})$")
BEGINNINGS = re.compile(rf"\.?{names.STEP}(\*|\\d|$)|(^|/)rank_(\*|$)")


def literals(tree: ast.Module) -> Iterator[tuple[ast.Constant, str]]:
    """Strings that the code uses: all but those that stand as a statement, such as docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node, node.value


def in_paths(tree: ast.Module) -> set[int]:
    """The literals that are part of a path: `folder / "logs"`, `os.path.join(folder, "logs")`."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            found += [node.left, node.right]
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("joinpath", "Path", "glob"):
            found += node.args
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("path.join"):
            found += node.args
    return {id(node) for node in found}


def constants(tree: ast.Module) -> set[int]:
    """The literals that a module gives a name: `_LOGS = "logs"`."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return {id(part) for value in values for part in (value.elts if isinstance(value, ast.Tuple) else [value]) if part}


def repeated(source: str) -> list[str]:
    tree = ast.parse(source)
    paths, named = in_paths(tree), constants(tree)
    return [
        text
        for node, text in literals(tree)
        if any(name in text for name in SUFFIXED)
        or (id(node) in paths and text.strip("/") in FOLDERS)
        or (id(node) in named and text in OWN)
        or SLASHED.search(text)
        or BEGINNINGS.search(text)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_file_spells_a_name_of_the_run_folder(path: Path) -> None:
    assert repeated(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        'read_json(run / "summary.json")',
        'run.glob("*/resolved.yaml")',
        'run / "logs" / name',
        '(run / "checkpoints").iterdir()',
        'run.glob("checkpoints/" + name)',
        'f"step_{step:08d}"',
        'folder.glob(".step_*")',
        'f"logs/rank_{rank}.log"',
        'folder.glob("rank_*.log")',
        'print(f"see {run}/events.jsonl")',
        'os.path.join(run, "logs")',
        'run.joinpath("checkpoints", name)',
        'Path(run, "lease")',
        'f"{run}/checkpoints"',
        '_LOGS = "logs"',
        '_WORKERS, _LOCK_FILE = "workers", "lock"',
        'run / "report.html"',
        'sweep / "output"',
        'sweep / "trials.csv"',
        '_LOCK_FILE = ".turn"',
    ],
)
def test_a_name_that_is_spelt_elsewhere_is_found(line: str) -> None:
    assert repeated(line)


OTHER = {
    "RESOLVED": "settings.yaml",
    "ENVIRONMENT": "machine.json",
    "METRICS": "numbers.jsonl",
    "EVENTS": "history.jsonl",
    "SUMMARY": "result.json",
    "CHECKPOINTS": "saves",
    "STEP": "after_",
    "MANIFEST": "contents.json",
    "PROGRESS": "position.json",
    "MODEL": "weights.safetensors",
    "STATE": "optimizer.pt",
    "LEASE": "holders",
    "LOGS": "journal",
}


@pytest.fixture(scope="module")
def other_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phalanx with another layout: a copy in which names.py alone is changed."""
    top = tmp_path_factory.mktemp("tree")
    for part in ("phalanx", "train", "launch", "conf", "slurm"):
        shutil.copytree(ROOT / part, top / part, symlinks=True)
    home = top / "phalanx/run_folder/names.py"
    text = home.read_text()
    for name, value in OTHER.items():
        text, count = re.subn(rf'^{name} = ".*?"', f'{name} = "{value}"', text, flags=re.MULTILINE)
        assert count == 1, name
    home.write_text(text.replace('f"rank_{rank}.log"', 'f"of_{rank}.txt"'))
    (top / "tests").symlink_to(ROOT / "tests")  # for a process that imports that Phalanx
    return top


@pytest.fixture(scope="module")
def other_nursery(other_tree: Path) -> Iterator[Nursery]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.ranks.ROOT", other_tree)
        made = Nursery()
    yield made
    made.close()


def test_a_changed_layout_works_for_train_status_report_and_logs(other_tree: Path, other_nursery: Nursery) -> None:
    def phalanx(*words: str) -> str:
        environ = {**os.environ, **QUIET, "PYTHONPATH": str(other_tree)}
        done = run_warm(other_nursery, words, cwd=other_tree, env=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    root = other_tree / "results"
    run = root / "r"
    words = ("model=mlp", "model.hidden=[8]", "checkpoint.every=2", f"run.root={root}", "run.name=r", *SMALL)
    command = ["run", "-n", "1", "train.steps=4", *words]
    phalanx(*command)
    found = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {
        "settings.yaml",
        "machine.json",
        "numbers.jsonl",
        "history.jsonl",
        "result.json",
        "journal/of_0.txt",
    } <= found
    assert {"saves/after_00000004/contents.json", "saves/after_00000004/weights.safetensors"} <= found
    assert not {path.name for path in run.rglob("*")} & {value for name, value in TEXTS.items() if name in OTHER}

    assert "finished already: 4 steps" in phalanx(*command)
    state = json.loads(phalanx("status", "--json", str(run)))
    assert (state["state"], state["step"]) == ("finished", 4)
    assert "step 4/4" in phalanx("logs", str(run))
    before, numbers = (run / "result.json").read_text(), (run / "numbers.jsonl").read_text()
    (run / "result.json").unlink()
    phalanx(*command)
    assert json.loads((run / "result.json").read_text())["weights_sha256"] == json.loads(before)["weights_sha256"]
    assert (run / "numbers.jsonl").read_text() == numbers, "it found its checkpoint, and trained no step again"
    phalanx("report", str(run), "--out", str(root / "page.html"))
    page = (root / "page.html").read_text()
    assert "accuracy" in page
    assert "mlp" in page
