"""The folder of the package, and its position on sys.path: after all other entries, so that it shadows nothing."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # phalanx/, which holds all of ours
ROOT = PACKAGE.resolve().parent  # the checkout, or where packages are installed
_INSTALLED = ("site-packages", "dist-packages")


def move_root_back(root: str) -> None:
    """Move `root`, the first entry of sys.path, behind the standard library and the user's own folders.

    Call it once `phalanx` is imported from there. An installed `root` is site-packages, whose modules must not shadow the
    standard library or the user's. A checkout goes right before the installed packages.
    """
    assert sys.path[0] == root
    del sys.path[0]
    if root not in sys.path:
        installed = [index for index, entry in enumerate(sys.path) if entry.endswith(_INSTALLED)]
        sys.path.insert(installed[0] if installed else len(sys.path), root)
