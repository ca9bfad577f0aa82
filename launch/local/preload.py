"""What a process does so that ranks can be forked from it: all that is the same for each of them, computing nothing.

It has one thread and never uses a GPU: a CUDA context does not survive a fork.
"""

import importlib
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import phalanx.train.main
from phalanx.common import stdio
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import refuse
from phalanx.exit.rank_env import RankEnv, speaks
from phalanx.system.garbage_collection import not_collected


def preload() -> None:
    """Import torch and all of train/. The ranks share the memory."""
    with not_collected():
        import torch._dynamo  # noqa: F401 - DDP and the optimizers import it at their first use

        for found in pkgutil.walk_packages(phalanx.train.__path__, "phalanx.train."):
            importlib.import_module(found.name)


def prepared(script: str, words: Sequence[str], begun_s: float) -> Callable[[], None]:
    """What a rank does that is forked from now on, which began with this process at `begun_s`.

    The environment is that of the first rank here. Ends the process where the command line needs no ranks, as it has a
    fault or only asks.
    """
    sys.argv = [script, *words]
    if Path(script).resolve() != Path(phalanx.train.main.__file__).resolve():
        preload()
        return lambda: _run(script)
    stdio.open_all()
    stdio.take_over()
    try:
        composed = phalanx.train.main.prepare(list(words), RankEnv.from_environment(os.environ))
    except ConfigError as error:
        refuse(error, speaks(os.environ))
    if composed is None:
        sys.exit(ExitCode.FINISHED)
    preload()

    def begin() -> None:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        sys.modules["__main__"] = phalanx.train.main  # data workers import what is the main module
        # The config of the others may look up what differs in their environments.
        phalanx.train.main.main(composed if os.environ["LOCAL_RANK"] == "0" else None, begun_s)

    return begin


def _run(script: str) -> None:
    import numpy as np

    np.random.seed()  # which all ranks would otherwise have in common
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")
