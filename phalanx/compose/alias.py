"""Resolve re-exports: the canonical name of a class that packages export under several, from source, without importing.

The launcher, which has no torch, and each rank read the same files, so they give a run the same name.
"""

import functools
from collections.abc import Mapping
from importlib.machinery import ModuleSpec

from ..common.find_module import find_module
from .module_source import ModuleSource, read_source, read_source_for

APART = frozenset({"torch", "torchvision", "phalanx"})  # canonical.py has rules for their names


def documented_name(target: str) -> str:
    """The shortest name under which packages re-export `target`, which is the one that they document.

    `target` itself if the source does not tell: a missing module, or names made at run time. A method is named by its
    class, as that is.
    """
    sources = _Sources()
    parts = target.split(".")
    modules = (count for count in range(len(parts) - 1, 0, -1) if sources.find(".".join(parts[:count])) is not None)
    end = next(modules, len(parts)) + 1
    return ".".join([_documented(".".join(parts[:end]), sources), *parts[end:]])


def _documented(target: str, sources: "_Sources") -> str:
    home = sources.home(target, {})
    module, _, name = home.rpartition(".")
    parts = module.split(".")
    if parts[0] in APART:
        return home
    packages = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((known for package in packages if sources.home(known := f"{package}.{name}", {}) == home), home)


def defaults(target: str) -> Mapping[str, object]:
    """The literal defaults of a class's arguments."""
    sources = _Sources()
    module, _, name = sources.home(target, {}).rpartition(".")
    found = sources.read(module)
    return {} if found is None or name not in found.defaults else found.defaults[name]


class _Sources:
    """The modules that a name is followed through, each found and read once."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}
        self._read: dict[tuple[str, str | None], ModuleSource | None] = {}

    def home(self, path: str, known: dict[str, str | None]) -> str:
        """The dotted path where `path` is defined, as far as the source tells; of a module its own name."""
        return self._led(path, known) or path

    def find(self, module: str) -> ModuleSpec | None:
        if module not in self._specs:
            self._specs[module] = find_module(module, self._specs.get(module.rpartition(".")[0]))
        return self._specs[module]

    def read(self, module: str, name: str | None = None) -> ModuleSource | None:
        """The source of a module, with `name` what it says of that alone."""
        if (module, name) not in self._read:
            self._read[module, name] = self._source(module, name)
        return self._read[module, name]

    def _source(self, module: str, name: str | None) -> ModuleSource | None:
        spec = self.find(module) if module else None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
        return read_source(spec.origin, package) if name is None else read_source_for(name, spec.origin, package)

    def _led(self, path: str, known: dict[str, str | None]) -> str | None:
        """The same, None if the source has no such name. `known` caches visited names: modules that import * from each
        other would be walked along every path."""
        if known and path.partition(".")[0] in APART:
            return path
        if path not in known:
            known[path] = (
                path if self.find(path) is not None else None
            )  # a package that takes in a module of its own asks again
            known[path] = self._told(path, known) or known[path]
        return known[path]

    def _told(self, path: str, known: dict[str, str | None]) -> str | None:
        """Resolve a name by the source of its module."""
        module, _, name = path.rpartition(".")
        found = self.read(module, name)
        if found is None:
            return None
        if name in found.names:
            origin = found.names[name]
            return path if origin is None else self._followed(module, origin, known)
        for other in reversed(found.all_of):
            there = None if other.partition(".")[0] in APART else self.read(other, name)
            if there is None or not (there.public or not name.startswith("_")) or name not in (there.public or {name}):
                continue
            if home := self._led(f"{other}.{name}", known):
                return home
        return None

    def _followed(self, module: str, origin: str, known: dict[str, str | None]) -> str:
        """`origin` is a full dotted name or, after a leading dot, a name in `module` and its attributes."""
        if not origin.startswith("."):
            return self.home(origin, known)
        first, *rest = origin[1:].split(".")
        beginning = self.home(f"{module}.{first}", known)
        return functools.reduce(lambda home, name: self.home(f"{home}.{name}", known), rest, beginning)
