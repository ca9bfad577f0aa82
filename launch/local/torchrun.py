"""torchrun, for ranks on several machines: which ranks failed there, and whether it was told to leave."""

import signal
import sys
from collections.abc import Sequence

from phalanx.system.garbage_collection import not_collected

from .ranks import Ended


def start(argv: Sequence[str]) -> Ended:
    """Start the ranks of this machine as torchrun's options say, and wait until all have ended.

    Raises what torchrun raises where it failed itself.
    """
    with not_collected():
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun

    script = next((place for place, word in enumerate(argv) if not word.startswith("-")), len(argv))
    # It takes every argument of the script for a template, in which $$ is a $ and ${local_rank} a number.
    words = [word.replace("$", "$$") for word in argv[script:]]
    try:
        torchrun([*argv[:script], *words])
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        # In the order in which torchrun saw them end.
        return Ended([(rank, failed.exitcode, failed.timestamp) for rank, failed in error.failures.items()], None)
    except SignalException as told:
        return Ended([], signal.Signals(told.sigval))
    return Ended([], None)
