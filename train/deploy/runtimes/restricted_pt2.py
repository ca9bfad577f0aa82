"""Read a file of torch.export that a stranger may have made.

`torch.export.load` unpickles sample inputs and constants, evaluates expressions of shapes by sympy, runs guards as
Python, and calls whatever a node's target names below `torch`. So the archive is looked through first, and refused for
anything but tensors as they lie in memory, operators, and arithmetic.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from phalanx.exit.codes import ConfigError

_FILES = re.compile(
    r"[^/]+/(data/weights/(weight_\d+|\w+_weights_config\.json)|data/constants/(tensor_\d+|\w+_constants_config\.json)"
    r"|models/\w+\.json|data/sample_inputs/\w+\.pt|extra/[\w.]*|archive_format|archive_version|byteorder|\.data/\w+)"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision|phalanx|_c10d_functional)\.[\w.]+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|getitem|and_|or_|not_|pos|abs)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_\w+|torch\._sym_\w+"
)
_NODES = (
    *(ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.Load, ast.keyword),
    *(ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.cmpop, ast.operator, ast.Call, ast.Subscript, ast.Attribute),
)
_FUNCTIONS = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|Max|Min|Eq|Ne|Ge|Gt|Le|Lt|Equality|Unequality|GreaterThan|LessThan"
    r"|StrictGreaterThan|StrictLessThan|And|Or|Not|Abs|Piecewise|ExprCondPair|Where|FloorDiv|CleanDiv|CeilDiv|PythonMod"
    r"|ModularIndexing|IntTrueDiv|FloatTrueDiv|TruncToInt|CeilToInt|FloorToInt|RoundToInt|ToFloat|PowByNatural|FloatPow"
    r"|true|false|True|False|oo|int_oo|[suz]\d+|L|floor|ceiling|size|stride|storage_offset|dim"
)


def load_pt2(path: Path) -> torch.nn.Module:
    """The module of the exported program. Raises ConfigError for one that could run more than operators."""
    try:
        _check(path)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be read as a program of torch.export: {error}. Export it anew") from None
    loaded: torch.nn.Module = torch.export.load(path).module()
    return loaded


def _check(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not _FILES.fullmatch(name):
                raise _refusal(path, f"the file {name}")
        for name in archive.namelist():
            if name.endswith("_config.json"):
                if any(
                    entry.get("use_pickle") is not False for entry in json.loads(archive.read(name))["config"].values()
                ):
                    raise _refusal(path, f"a pickle that {name} names")
            elif "/sample_inputs/" in name:
                _check_tensors(path, archive.read(name))
            elif "/models/" in name:
                _check_program(path, json.loads(archive.read(name)))


def _check_tensors(path: Path, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        raise _refusal(path, "sample inputs that are no tensors") from None


def _check_program(path: Path, program: dict[str, Any]) -> None:
    for key, value in _strings(program, ""):
        if key == "target" and not _OPERATORS.fullmatch(value):
            raise _refusal(path, f"a call of {value}")
        if key in ("expr_str", "guards_code", "root", "derived", "expr", "symbol_name_to_range") and not _is_arithmetic(
            value
        ):
            raise _refusal(path, f"the expression {value[:80]!r}")
        if key in ("in_spec", "out_spec") and not _is_plain(json.loads(value)):
            raise _refusal(path, "arguments in objects of classes")


def _strings(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Each text with the key that it stands under, however deep."""
    if isinstance(node, dict):
        for name, child in node.items():
            if key == "range_constraints":
                yield "expr", name
            yield from _strings(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from _strings(child, key)
    elif isinstance(node, str):
        yield key, node


def _is_arithmetic(text: str) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except SyntaxError:
        return False
    for node in nodes:
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Name) and not _FUNCTIONS.fullmatch(node.id):
            return False
        if isinstance(node, ast.Attribute) and node.attr not in ("size", "stride", "storage_offset", "dim"):
            return False
    return True


def _is_plain(spec: Any) -> bool:
    """Whether arguments are in dicts, lists and tuples alone."""
    if isinstance(spec, list):
        return all(map(_is_plain, spec))
    if isinstance(spec, dict):
        known = spec.get("type") in (None, "builtins.dict", "builtins.list", "builtins.tuple")
        return known and all(_is_plain(child) for child in spec.get("children_spec", []))
    return isinstance(spec, int)


def _refusal(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} holds {what}, which could run code of whoever made it, so it is not loaded. Export the model anew, from "
        "a run that you trust"
    )
