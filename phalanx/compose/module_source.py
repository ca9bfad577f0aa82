"""What a module says of its names, read from its source: which are defined there, and where the others come from."""

import ast
import functools
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

_NOTHING = object()
_BLOCKS = (ast.If, ast.Try, ast.TryStar, ast.With)
_STARS = re.compile(rb"^[ \t]*from[ \t]+([.\w]+)[ \t]+import[ \t]*\*", re.MULTILINE)


@dataclass
class ModuleSource:
    """`names`: the origin of each, None if defined here. `all_of`: modules of `from … import *`."""

    names: dict[str, str | None] = field(default_factory=dict)
    all_of: list[str] = field(default_factory=list)
    public: frozenset[str] | None = None
    defaults: dict[str, dict[str, object]] = field(default_factory=dict)


def read_source(file: str, package: str) -> ModuleSource | None:
    """What the file of a module in `package` says; None where it cannot be read or parsed."""
    try:
        return _parsed(file, package, _state(file))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def read_source_for(name: str, file: str, package: str) -> ModuleSource | None:
    """What the file says of `name`: nothing but which modules it imports * from, where the word does not stand in it.

    To search a file takes a hundredth of the time to parse it: packages of thousands of files hand on their names by *.
    """
    try:
        without = _without(name, file, package, _state(file))
    except OSError:
        return None
    return read_source(file, package) if without is None else without


@functools.lru_cache(maxsize=8192)
def _without(name: str, file: str, package: str, _state: tuple[int, ...]) -> ModuleSource | None:
    """What a file says in which `name` does not stand; None where it does."""
    with open(file, "rb") as source:
        text = source.read()
    if name.encode() in text or not name.isascii():
        return None
    if b"__all__" in text and b"import *" not in text:
        return ModuleSource(public=frozenset({""}))
    return ModuleSource(all_of=[_absolute(found.decode(), package) for found in _STARS.findall(text)])


def _state(file: str) -> tuple[int, ...]:
    told = os.stat(file)
    return told.st_mtime_ns, told.st_size, told.st_ino


def _absolute(module: str, package: str) -> str:
    name = module.lstrip(".")
    level = len(module) - len(name)
    return _beside(level, name or None, package)


@functools.lru_cache(maxsize=256)
def _parsed(file: str, package: str, _state: tuple[int, ...]) -> ModuleSource:
    """The parsed file, cached by its mtime, size and inode."""
    with open(file, "rb") as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of "\d"; whoever imports the module gets them
        body = ast.parse(source.read()).body
    found = ModuleSource()
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
    return _beside(statement.level, statement.module, package)


def _beside(level: int, module: str | None, package: str) -> str:
    """The absolute name of `module`, imported with so many dots in front from within `package`."""
    if not level:
        return str(module)
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [module])])


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
