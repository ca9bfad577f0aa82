"""Where our own packages are found, and what else of the folder that holds them is: nothing before anybody else's."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # phalanx/, which holds all of ours
ROOT = PACKAGE.resolve().parent  # the checkout, or where packages are installed
_INSTALLED = ("site-packages", "dist-packages")


def step_aside(root: str) -> None:
    """Once what is ours was imported from `root`, the first entry of the path, its other contents come after others'.

    Where we are installed, `root` holds all that ever was: a module of that folder must not come before one of the standard
    library or of the user's own. In a checkout it comes after both, and before what is installed.
    """
    assert sys.path[0] == root
    del sys.path[0]
    if root not in sys.path:
        installed = [index for index, entry in enumerate(sys.path) if entry.endswith(_INSTALLED)]
        sys.path.insert(installed[0] if installed else len(sys.path), root)
