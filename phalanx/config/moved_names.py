"""What configs and users' modules named before all of ours was in the package `phalanx`, and what it is called now."""

import ast
import linecache
from collections.abc import Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from ..common.find_module import find_module
from ..system.module_path import ROOT

MOVED = {  # the name of then -> the name of now
    "train.models.convnet.ConvNet": "phalanx.models.ConvNet",
    "train.models.mlp.MLP": "phalanx.models.MLP",
    "train.data.digits.Digits": "phalanx.data.Digits",
    "train.data.images.Images": "phalanx.data.Images",
    "train.data.mnist.MNIST": "phalanx.data.MNIST",
    "train.data.augment.ShiftRotate": "phalanx.data.ShiftRotate",
    "train.data.augment.Augment": "phalanx.Augment",
    "train.tasks.task.Ratio": "phalanx.Ratio",
    "train.tasks.task.Task": "phalanx.Task",
    "train.tasks.classification.Classification": "phalanx.tasks.Classification",
    "train.schedule.Schedule": "phalanx.Schedule",
    "train.schedule.Constant": "phalanx.schedules.Constant",
    "train.schedule.Cosine": "phalanx.schedules.Cosine",
    "train.schedule.Linear": "phalanx.schedules.Linear",
    "train.schedule.OneCycle": "phalanx.schedules.OneCycle",
    "train.schedule.Step": "phalanx.schedules.Step",
}
_OF_CLASS = {name.rpartition(".")[2]: name for name in MOVED}
_TREES = ("train", "launch")  # once packages of their own


def old_name(target: str) -> str:
    """The name of then for a class of ours, by whichever name of now; any other as it is."""
    package, _, name = target.rpartition(".")
    return _OF_CLASS.get(name, target) if package.partition(".")[0] == "phalanx" else target


def current_name(target: str) -> str | None:
    """The name of now for a name of then; None for any other, and where a package of the user's has such a module."""
    now = MOVED.get(target)
    there = None if now is None else find_module(target.rpartition(".")[0])
    return None if there is not None and not Path(str(there.origin)).is_relative_to(ROOT) else now


def with_current_names(value: Any) -> Any:
    """A stored config, or a part of one, with each `_target_` by its name of now."""
    if isinstance(value, Mapping):
        return {
            name: current_name(item) or item
            if name == "_target_" and isinstance(item, str)
            else with_current_names(item)
            for name, item in value.items()
        }
    return [with_current_names(item) for item in value] if isinstance(value, list) else value


def explain_old_import(error: ImportError) -> str | None:
    """Which line imports what is in `phalanx` now, and what to write there; None where that is not why it failed."""
    if str(error.name).partition(".")[0] not in _TREES:
        return None
    for frame in reversed(extract_tb(error.__traceback__)):
        words = [word for word in _imported(frame.filename, frame.lineno or 0) if word.partition(".")[0] in _TREES]
        if words:
            return (
                f"{frame.filename}:{frame.lineno} imports {words[0].rpartition('.')[0] or words[0]}, and all of Phalanx is "
                f"in the package phalanx now. Write there: {_import_of_now(words)}"
            )
    return None


def _import_of_now(words: list[str]) -> str:
    """The statements that import what `words` are called now."""
    found: dict[str, list[str]] = {}
    for word in words:
        package, _, name = MOVED.get(word, f"phalanx.{word}").rpartition(".")
        found.setdefault(package, []).append(name)
    return "; ".join(f"from {package} import {', '.join(names)}" for package, names in found.items())


def _imported(file: str, line: int) -> Iterator[str]:
    """The dotted names that the statement at a line of a file imports."""
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno <= line <= (node.end_lineno or line):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            yield from (f"{module}{alias.name}" for alias in node.names)
