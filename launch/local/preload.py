"""Imports torch and train/ once in the process that ranks are forked from, so that each rank starts without importing.

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
from phalanx.config.schema import Config
from phalanx.deployment.job import job_of
from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.messages import refuse
from phalanx.exit.rank_env import RankEnv, prints_errors
from phalanx.system.garbage_collection import gc_paused
from phalanx.system.gpu_visibility import given_gpus

_SETS_UP = "phalanx.train.loading.workers.worker_parent"  # the process that imports it, for data workers
_DEPLOYS = "phalanx.train.deploy."  # which takes a quarter of a second, and no run that trains needs it


def preload(*, deploys: bool = True, dynamo: bool = True) -> None:
    """Import torch and all of train/, which the ranks share: with what `deploys` models, and torch._dynamo, if asked."""
    with gc_paused():
        if dynamo:
            importlib.import_module("torch._dynamo")
        for found in pkgutil.walk_packages(phalanx.train.__path__, "phalanx.train."):
            if found.name != _SETS_UP and (deploys or not found.name.startswith(_DEPLOYS)):
                importlib.import_module(found.name)


def become_main() -> None:
    """Make train/main.py the `__main__` of this process, which data workers import when they are spawned."""
    sys.modules["__main__"] = phalanx.train.main


def rank_body(script: str, words: Sequence[str], begun_s: float) -> Callable[[], None]:
    """Returns the body of a rank that is forked from this process, which began at `begun_s` (time.monotonic()).

    The environment is that of the first rank here. Ends the process where the command line needs no ranks: a config error,
    or an option such as --help.
    """
    sys.argv = [script, *words]
    if Path(script).resolve() != Path(phalanx.train.main.__file__).resolve():
        preload()
        return lambda: _run(script)
    stdio.open_closed_streams()
    stdio.wrap_streams()
    try:
        composed = phalanx.train.main.prepare(list(words), RankEnv.from_environment(os.environ))
    except ConfigError as error:
        refuse(error, prints_errors(os.environ))
    if composed is None:
        sys.exit(ExitCode.FINISHED)
    preload(deploys=job_of(words)[0] is not None, dynamo=_needs_dynamo(composed.config))

    def begin() -> None:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        become_main()
        # The configs of the other ranks may read other values from their environments.
        phalanx.train.main.main(composed if os.environ["LOCAL_RANK"] == "0" else None, begun_s)

    return begin


def _needs_dynamo(config: Config) -> bool:
    """Whether ranks import torch._dynamo, which takes most of a second: to compile, to checkpoint, and for DDP, on GPUs."""
    compiles = config.train.compile or config.train.checkpoint_activations is not None
    return compiles or given_gpus(os.environ) > 0


def _run(script: str) -> None:
    import numpy as np

    np.random.seed()  # else all ranks would have the same random state
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")
