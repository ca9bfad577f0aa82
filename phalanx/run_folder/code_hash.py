"""Hash the source code of a run, to notice that it changed since the first start."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from ..exit.codes import ConfigError

_OURS = "phalanx/"  # begins the names of files of ours, so that no package of the user's has one of them
_LISTED = 8  # changed files of ours that are listed; more are counted
_FORMER_FOLDERS = ("common", "compose", "config", "exit", "run_folder", "system", "train")
COVERED_BY_VERSION = frozenset({"torch", "torchvision"}) | sys.stdlib_module_names


def hash_code(packages: Iterable[str], package: Path) -> dict[str, str]:
    """Name -> sha256, of each `*.py` of ours in `package` but the launcher's, and of the given packages.

    Ours are named `phalanx/train/main.py`, others relative to their package's parent. Packages and single modules are
    found, not imported; those in `COVERED_BY_VERSION` are left out. Links that lead out of a package are not followed.
    Raises ConfigError for a package that Python cannot find.
    """
    hashes = {
        f"{_OURS}{name}": _sha256(path) for folder in _folders_of_ranks(package) for name, path in _sources(folder)
    }
    for top in sorted({name.partition(".")[0] for name in packages} - COVERED_BY_VERSION - {"phalanx"}):
        for root in _source_roots(top):
            for name, path in _sources(root):
                hashes.setdefault(name, _sha256(path))  # of a package in several folders the first counts, as in Python
    return dict(sorted(hashes.items()))


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _folders_of_ranks(package: Path) -> list[Path]:
    """The folders of the package with code that runs in ranks."""
    return [
        room for room in sorted(package.iterdir()) if room.is_dir() and room.name not in ("conf", "launch", "slurm")
    ]


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line for each name whose hash differs, in name order: `edited: a.py`, `new: b.py`, `gone: c.py`.

    More than `_LISTED` files of ours become one line, after the user's: another version of Phalanx. `before` may be what
    an older version recorded.
    """
    before = _by_todays_names(before, now)
    kinds = {
        name: "new" if name not in before else "gone" if name not in now else "edited"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    }
    ours = [kind for name, kind in kinds.items() if name.startswith(_OURS)]
    if len(ours) <= _LISTED:
        return [f"{kind}: {name}" for name, kind in kinds.items()]
    counts = ", ".join(f"{ours.count(kind)} {kind}" for kind in ("edited", "new", "gone") if kind in ours)
    theirs = [f"{kind}: {name}" for name, kind in kinds.items() if not name.startswith(_OURS)]
    return [*theirs, f"Phalanx itself is another version (files: {counts})"]


def _by_todays_names(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """What was recorded, each file of ours under the name that it has today.

    Once ours were recorded without `phalanx/`, and a file of the user's with the same name was left out: what it held is
    not known, so that it counts as unchanged.
    """
    if any(name.startswith(_OURS) for name in before):
        return dict(before)
    found = {}
    for name, value in before.items():
        users = name in now and f"{_OURS}{name}" not in now
        if users or name.partition("/")[0] not in _FORMER_FOLDERS:
            found[name] = value
            continue
        found[f"{_OURS}{name}"] = value
        if name in now:
            found[name] = now[name]
    return found


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


def _sources(root: Path) -> Iterator[tuple[str, str]]:
    """The `*.py` files at or under `root`, each its path, and a name that begins with the root's own."""
    if root.is_file():
        yield root.name, str(root)
        return
    inside = Path(os.path.realpath(root))
    for folder, subfolders, files in os.walk(root):  # enters no folder that is a link
        subfolders[:] = sorted(name for name in subfolders if name != "__pycache__" and not name.startswith("."))
        below = f"{root.name}{folder[len(str(root)) :]}"
        for name in sorted(name for name in files if name.endswith(".py")):
            path = f"{folder}/{name}"
            leads_out = os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(inside)
            if not leads_out and os.path.isfile(path):
                yield f"{below}/{name}", path
