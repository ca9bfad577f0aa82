"""Resolve re-exports: the canonical name of a class that packages export under several, from source, without importing.

The launcher, which has no torch, and each rank read the same files, so they give a run the same name.
"""

import ast
import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..common.find_module import find_module

APART = frozenset({"torch", "torchvision", "phalanx"})  # canonical.py has rules for their names
_NOTHING = object()
_BLOCKS = (ast.If, ast.Try, ast.TryStar, ast.With)


def documented_name(target: str) -> str:
    """The shortest name under which packages re-export `target`, which is the one that they document.

    `target` itself if the source does not tell: a missing module, or names made at run time.
    """
    home = _home(target, {})
    module, _, name = home.rpartition(".")
    parts = module.split(".")
    if parts[0] in APART:
        return home
    packages = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((known for package in packages if _home(known := f"{package}.{name}", {}) == home), home)


def defaults(target: str) -> Mapping[str, object]:
    """The literal defaults of a class's arguments."""
    module, _, name = _home(target, {}).rpartition(".")
    found = _read(module)
    return {} if found is None or name not in found.defaults else found.defaults[name]


@dataclass
class _Module:
    """`names`: the origin of each, None if defined here. `all_of`: modules of `from … import *`."""

    names: dict[str, str | None] = field(default_factory=dict)
    all_of: list[str] = field(default_factory=list)
    public: frozenset[str] | None = None
    defaults: dict[str, dict[str, object]] = field(default_factory=dict)


def _home(path: str, known: dict[str, str | None]) -> str:
    """The dotted path where `path` is defined, as far as the source tells; of a module its own name."""
    return _led(path, known) or path


def _led(path: str, known: dict[str, str | None]) -> str | None:
    """The same, None if the source has no such name. `known` caches visited names: modules that import * from each other
    would be walked along every path."""
    if known and path.partition(".")[0] in APART:
        return path
    if path not in known:
        known[path] = (
            path if find_module(path) is not None else None
        )  # a package that takes in a module of its own asks again
        known[path] = _told(path, known) or known[path]
    return known[path]


def _told(path: str, known: dict[str, str | None]) -> str | None:
    """Resolve a name by the source of its module."""
    module, _, name = path.rpartition(".")
    found = _read(module)
    if found is None:
        return None
    if name in found.names:
        origin = found.names[name]
        return path if origin is None else _followed(module, origin, known)
    for other in reversed(found.all_of):
        there = None if other.partition(".")[0] in APART else _read(other)
        if there is None or not (there.public or not name.startswith("_")) or name not in (there.public or {name}):
            continue
        if home := _led(f"{other}.{name}", known):
            return home
    return None


def _followed(module: str, origin: str, known: dict[str, str | None]) -> str:
    """`origin` is a full dotted name or, after a leading dot, a name in `module` and its attributes."""
    if not origin.startswith("."):
        return _home(origin, known)
    first, *rest = origin[1:].split(".")
    return functools.reduce(lambda home, name: _home(f"{home}.{name}", known), rest, _home(f"{module}.{first}", known))


def _read(module: str) -> _Module | None:
    spec = find_module(module) if module else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    try:
        told = os.stat(spec.origin)
        return _parsed(spec.origin, package, (told.st_mtime_ns, told.st_size, told.st_ino))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.lru_cache(maxsize=256)
def _parsed(file: str, package: str, _state: tuple[int, ...]) -> _Module:
    """The parsed file, cached by its mtime, size and inode."""
    with open(file, "rb") as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of "\d"; whoever imports the module gets them
        body = ast.parse(source.read()).body
    found = _Module()
    for statement in _statements(body):
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
            found.all_of.append(_origin(statement, package))
            continue
        for name, origin in _bound(statement, package):
            # Bound to several origins, depending on a condition: treat it as defined here.
            found.names[name] = origin if found.names.get(name, origin) == origin else None
        if isinstance(statement, ast.ClassDef):
            bases = [found.defaults.get(str(_dotted(base)), {}) for base in reversed(statement.bases)]
            found.defaults[statement.name] = _defaults(statement, functools.reduce(dict.__or__, bases, {}))
        if isinstance(statement, ast.Assign) and any(_dotted(target) == "__all__" for target in statement.targets):
            found.public = _listed(statement.value)
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those in if, try and with included, and the imports inside a module `__getattr__`."""
    for statement in body:
        if isinstance(statement, _BLOCKS):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__":
            yield from (inner for inner in ast.walk(statement) if isinstance(inner, ast.ImportFrom))
        else:
            yield statement


def _bound(statement: ast.stmt, package: str) -> Iterator[tuple[str, str | None]]:
    if isinstance(statement, ast.ImportFrom):
        origin = _origin(statement, package)
        yield from ((alias.asname or alias.name, f"{origin}.{alias.name}") for alias in statement.names)
    elif isinstance(statement, ast.Import):
        yield from ((alias.asname or alias.name.partition(".")[0], _imported(alias)) for alias in statement.names)
    elif isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name, None
    elif isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
        value = _dotted(statement.value)
        yield from ((str(_dotted(target)), value and f".{value}") for target in statement.targets)
    else:
        stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
        yield from ((node.id, None) for node in stored if isinstance(node.ctx, ast.Store))


def _imported(alias: ast.alias) -> str:
    return alias.name if alias.asname else alias.name.partition(".")[0]


def _origin(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return str(statement.module)
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - statement.level + 1], *filter(None, [statement.module])])


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        holder = _dotted(node.value)
        return holder and f"{holder}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def _listed(value: ast.expr) -> frozenset[str] | None:
    found = _plain(value)
    return frozenset(map(str, found)) if isinstance(found, list | tuple | set) else None


def _defaults(made: ast.ClassDef, inherited: dict[str, object]) -> dict[str, object]:
    """Of the arguments of `__init__`, or of the fields of a dataclass."""
    init = next((inner for inner in made.body if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"), None)
    if init is None:
        fields = [inner for inner in made.body if isinstance(inner, ast.AnnAssign)]
        given = {str(_dotted(entry.target)): entry.value for entry in fields}
    else:
        named = [each.arg for each in (*init.args.posonlyargs, *init.args.args)]
        given = dict(zip(reversed(named), reversed(init.args.defaults), strict=False))
        given |= {each.arg: value for each, value in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)}
    found = {name: value for name, node in given.items() if (value := _plain(node)) is not _NOTHING}
    return {**inherited, **found} if init is None else found


def _plain(node: ast.expr | None) -> object:
    try:
        return _NOTHING if node is None else ast.literal_eval(node)
    except ValueError:
        return _NOTHING
