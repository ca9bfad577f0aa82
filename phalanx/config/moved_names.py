"""What configs and users' modules named before all of ours was in the package `phalanx`, and what it is called now."""

import ast
import linecache
from collections.abc import Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

from ..common.find_module import find_module
from ..system.module_path import PACKAGE

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
    "train.outcome.ConfigError": "phalanx.ConfigError",
    "train.sinks.sink.Sink": "phalanx.Sink",
    "train.schedule.Schedule": "phalanx.Schedule",
    "train.schedule.Constant": "phalanx.schedules.Constant",
    "train.schedule.Cosine": "phalanx.schedules.Cosine",
    "train.schedule.Linear": "phalanx.schedules.Linear",
    "train.schedule.OneCycle": "phalanx.schedules.OneCycle",
    "train.schedule.Step": "phalanx.schedules.Step",
}
_OF_CLASS = {name.rpartition(".")[2]: name for name in MOVED}
OLD_PACKAGES = ("train", "launch")  # once packages of their own


def old_name(target: str) -> str:
    """The name of then for a class of ours, by whichever name of now; any other as it is."""
    package, _, name = target.rpartition(".")
    return _OF_CLASS.get(name, target) if package.partition(".")[0] == "phalanx" else target


def current_name(target: str) -> str | None:
    """The name of now for a name of then; None for any other, and where a package of the user's has such a module."""
    now = MOVED.get(target)
    return None if now is None or _is_users(target.rpartition(".")[0]) else now


def explain_old_target(target: str, key: str) -> str | None:
    """The message for a old name as the value of `key`; None for any other."""
    now = current_name(target)
    return None if now is None else f"{key}={target} is called {now} now. Type {key}={now}"


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
    if str(error.name).partition(".")[0] not in OLD_PACKAGES:
        return None
    for frame in reversed(extract_tb(error.__traceback__)):
        for statement in _imports("".join(linecache.getlines(frame.filename))):
            if statement.lineno <= (frame.lineno or 0) <= (statement.end_lineno or statement.lineno):
                return _explain(frame.filename, statement)
    return None


def find_old_import(module: str) -> str | None:
    """As `explain_old_import`, of what stands in a module's file outside of any block, where nothing can be imported."""
    spec = find_module(module)
    try:
        source = Path(str(spec and spec.origin)).read_text(encoding="utf-8")
        body = ast.parse(source).body  # what stands in a `try` may be there for both versions
    except (OSError, ValueError, SyntaxError):
        return None
    found = [statement for statement in _imports(source) if any(statement.lineno == node.lineno for node in body)]
    stale = [statement for statement in found if not _is_users(_module_of(statement))]
    return _explain(str(spec and spec.origin), stale[0]) if stale else None


def _is_users(module: str) -> bool:
    """Whether a module is there that is not in a folder of ours, which lie beside the package in a checkout."""
    spec = find_module(module)
    ours = [(PACKAGE / package).resolve() for package in OLD_PACKAGES]
    return spec is not None and not any(Path(str(spec.origin)).resolve().is_relative_to(folder) for folder in ours)


def _imports(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The statements that import from what was once a package of ours, or is called so."""
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    absolute = [node for node in statements if isinstance(node, ast.Import) or node.level == 0]
    return [node for node in absolute if _module_of(node).partition(".")[0] in OLD_PACKAGES]


def _module_of(statement: ast.Import | ast.ImportFrom) -> str:
    if isinstance(statement, ast.ImportFrom):
        return str(statement.module)
    names = [alias.name for alias in statement.names]
    return next((name for name in names if name.partition(".")[0] in OLD_PACKAGES), names[0])


def _explain(file: str, statement: ast.Import | ast.ImportFrom) -> str:
    now = "; ".join(_statements_of_now(statement))
    return (
        f"{file}:{statement.lineno} imports {_module_of(statement)}, and all of Phalanx is in the package phalanx now. "
        + (f"Write there: {now}" if now else "What is public there is listed in README.md, and that is not")
    )


def _statements_of_now(statement: ast.Import | ast.ImportFrom) -> list[str]:
    """What imports the same names, by what they are called now; none where there is one that is not there any more."""
    found: dict[str, list[str]] = {}
    for alias in statement.names:
        then = f"{statement.module}.{alias.name}" if isinstance(statement, ast.ImportFrom) else alias.name
        if then.partition(".")[0] not in OLD_PACKAGES:  # import torch, train.tasks.task
            continue
        package, _, name = MOVED.get(then, f"phalanx.{then}").rpartition(".")
        if find_module(package) is None or (isinstance(statement, ast.Import) and not find_module(f"{package}.{name}")):
            return []
        found.setdefault(package, []).append(f"{name} as {alias.asname}" if alias.asname else name)
    return [f"from {package} import {', '.join(names)}" for package, names in found.items()]
