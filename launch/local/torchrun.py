"""Runs torchrun, for several machines without node numbers, and returns which ranks failed or which signal came."""

import signal
import sys
from collections.abc import Sequence

from phalanx.system.garbage_collection import gc_paused

from .ranks import RankEnds


def run_torchrun(argv: Sequence[str]) -> RankEnds:
    """Start the ranks of this machine as torchrun's options say, and wait until all have ended.

    Raises what torchrun raises where it failed itself.
    """
    with gc_paused():
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun

    script = next((index for index, word in enumerate(argv) if not word.startswith("-")), len(argv))
    # torchrun expands templates in the script's arguments: $$ becomes $, and ${local_rank} a number.
    words = [word.replace("$", "$$") for word in argv[script:]]
    try:
        torchrun([*argv[:script], *words])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        # In the order in which torchrun saw them end.
        return RankEnds([(rank, failed.exitcode, failed.timestamp) for rank, failed in error.failures.items()], None)
    except SignalException as told:
        return RankEnds([], signal.Signals(told.sigval))
    return RankEnds([], None)
