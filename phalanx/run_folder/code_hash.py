"""Hash the source code of a run, to notice that it changed since the first start."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from ..exit.codes import ConfigError
from ..system.module_path import PACKAGE

_LISTED = 8  # changed files of ours that are listed; more are counted
COVERED_BY_VERSION = frozenset({"torch", "torchvision"}) | sys.stdlib_module_names


def hash_code(packages: Iterable[str], package: Path) -> dict[str, str]:
    """Name relative to its package's parent -> sha256, of each `*.py` of ours in `package` but the launcher's, and of
    the given packages.

    Packages and single modules are found, not imported; those in `COVERED_BY_VERSION` are left out. Links that
    lead out of a package are not followed. Raises ConfigError for a package that Python cannot find.
    """
    tops = {name.partition(".")[0] for name in packages} - COVERED_BY_VERSION - {"phalanx"}
    roots = _folders_of_ranks(package) + [root for name in sorted(tops) for root in _source_roots(name)]
    hashes: dict[str, str] = {}
    for root in roots:
        for name, path in _sources(root):
            hashes.setdefault(name, hashlib.sha256(path.read_bytes()).hexdigest())
    return dict(sorted(hashes.items()))


def _folders_of_ranks(package: Path) -> list[Path]:
    """The folders of the package with code that runs in ranks."""
    return [
        room for room in sorted(package.iterdir()) if room.is_dir() and room.name not in ("conf", "launch", "slurm")
    ]


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line for each name whose hash differs, in name order: `edited: a.py`, `new: b.py`, `gone: c.py`.

    More than `_LISTED` files of ours become one line, after the user's: another version of Phalanx.
    """
    kinds = {
        name: "new" if name not in before else "gone" if name not in now else "edited"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    }
    rooms = {room.name for room in _folders_of_ranks(PACKAGE)}
    ours = [kind for name, kind in kinds.items() if name.partition("/")[0] in rooms]
    if len(ours) <= _LISTED:
        return [f"{kind}: {name}" for name, kind in kinds.items()]
    counts = ", ".join(f"{ours.count(kind)} {kind}" for kind in ("edited", "new", "gone") if kind in ours)
    theirs = [f"{kind}: {name}" for name, kind in kinds.items() if name.partition("/")[0] not in rooms]
    return [*theirs, f"Phalanx itself is another version (files: {counts})"]


def _source_roots(name: str) -> list[Path]:
    """Where a package's folders or a module's file lie; nothing for one without source, such as an extension."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module made by hand, `__main__` for one
        return []
    if spec is None:
        raise ConfigError(f"No package or module {name!r} is found: install it, or add its folder to PYTHONPATH.")
    if spec.submodule_search_locations is not None:
        return [Path(root) for root in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    """The `*.py` files at or under `root`, with names that begin with its own."""
    if root.is_file():
        yield root.name, root
        return
    inside = root.resolve()
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name != "__pycache__" and not name.startswith("."))
        for path in (Path(folder, name) for name in sorted(files) if name.endswith(".py")):
            if path.is_file() and path.resolve().is_relative_to(inside):
                yield path.relative_to(root.parent).as_posix(), path
