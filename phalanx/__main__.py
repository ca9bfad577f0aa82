"""`python -m phalanx`, or `python` and this folder: the command, from the copy of the code that this file is of.

With `-m MODULE` first, such as `-m launch.local.agent`: a module that a launcher runs as a process.
"""

import sys
from importlib import import_module
from pathlib import Path

if not __package__:  # run as a folder, which comes first on the path, where its modules would shadow others
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import_module("phalanx.system.module_path").move_root_back(sys.path[0])

import_module("phalanx.exit.linux_only").require_linux()  # other systems lack what is imported next

module = "launch.cli"
if sys.argv[1:2] == ["-m"]:
    module = sys.argv[2]
    del sys.argv[1:3]
import_module("phalanx.exit.interpreter_exit").run_without_teardown(import_module(f"phalanx.{module}").main)
