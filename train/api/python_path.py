"""PYTHONPATH of a child that imports what this process can: the modules beside a notebook or script, for one."""

import os
import sys
import sysconfig
from collections.abc import Mapping

from phalanx.system.module_path import INSTALLED, ROOT


def python_path(environ: Mapping[str, str]) -> str:
    """The folders of sys.path but for those of Python and of installed packages, then what `environ` has there already."""
    standard = sysconfig.get_paths()["stdlib"]
    added = [
        os.path.abspath(entry)  # "" is the current folder
        for entry in sys.path
        if not entry.endswith(INSTALLED) and not entry.startswith(standard) and entry != str(ROOT)
    ]
    there = [entry for entry in added if os.path.exists(entry) and os.pathsep not in entry]
    typed = environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*there, *filter(None, typed)]))
