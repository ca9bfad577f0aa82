"""The folder of the package, and its position on sys.path: after all other entries, so that it shadows nothing."""

import os
import sys
from collections.abc import Callable, Collection
from importlib import machinery
from pathlib import Path
from types import ModuleType

_FOUND = Path(__file__).parents[1]  # in an editable install a link, see pyproject.toml
# phalanx/, which holds all of ours. No other link in its path is resolved: nodes may differ in what it leads to.
PACKAGE = Path(os.path.normpath(_FOUND.parent / os.readlink(_FOUND))) if _FOUND.is_symlink() else _FOUND
ROOT = PACKAGE.resolve().parent  # the checkout, or where packages are installed
INSTALLED = ("site-packages", "dist-packages")
_LOADERS = (
    (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)


def move_root_back(root: str) -> None:
    """Move `root`, the first entry of sys.path, behind the standard library and the user's own folders.

    Call it once `phalanx` is imported from there. An installed `root` is site-packages, whose modules must not shadow the
    standard library or the user's. A checkout goes right before the installed packages.
    """
    assert sys.path[0] == root
    del sys.path[0]
    if root not in sys.path:
        installed = [index for index, entry in enumerate(sys.path) if entry.endswith(INSTALLED)]
        sys.path.insert(installed[0] if installed else len(sys.path), root)
    hide_trees()


def hide_trees() -> None:
    """From now on no entry of the path that is the checkout has a `train`, `launch`, `conf` or `slurm`.

    They are parts of `phalanx`, which links to them. Whoever imports `train` means a module of their own, and if that is
    a folder without __init__.py, Python would take a package with one before it from anywhere on the path.
    """
    trees = {entry.name for entry in os.scandir(PACKAGE) if entry.is_symlink()}  # none where we are installed
    sys.path_hooks.insert(0, _hook(trees))
    for entry in [entry for entry in sys.path_importer_cache if _is_root(entry)]:
        del sys.path_importer_cache[entry]


def _hook(trees: Collection[str]) -> Callable[[str], "_CheckoutFinder"]:
    def finder(entry: str) -> _CheckoutFinder:
        if not _is_root(entry):
            raise ImportError  # by which Python asks the next hook
        return _CheckoutFinder(entry, trees)

    return finder


def _is_root(entry: str) -> bool:
    return os.path.realpath(entry) == str(ROOT)


class _CheckoutFinder(machinery.FileFinder):
    """What Python finds in the checkout, but for `trees`."""

    def __init__(self, entry: str, trees: Collection[str]) -> None:
        super().__init__(entry, *_LOADERS)
        self._trees = trees

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> machinery.ModuleSpec | None:
        return None if fullname in self._trees else super().find_spec(fullname, target)
