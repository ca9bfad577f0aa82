"""torchrun, which itself only ever ends with 1, and says how its ranks ended where a launcher asks for it.

Takes torchrun's options, of which --standalone keeps to the loopback.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until torchrun listens: an import that is interrupted would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which the launcher holds back until Python has started

import os
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # a script's own folder would shadow other modules
    import launch  # noqa: F401 - ours from here on, whatever else is called so
    from train.own import step_aside

    step_aside(sys.path[0])

import gc
import json
import logging

from launch.cause import RANKS, first_failed, for_memory
from launch.loopback import keep_to_loopback
from launch.memory import kills
from train.cause import correct, witness
from train.outcome import ExitCode


def main() -> None:
    """Ends with 0, with 1 when a rank failed, with 128 and the number of the signal that it was told to leave with,
    and with a traceback when torchrun itself failed.

    Where nobody asks how its ranks ended, a failure is left in the cause file: srun ends with the signal that killed a
    launcher on another node, which may be the one that this failure had sent there.
    """
    gc.disable()  # collecting while torch is imported, and once more at the end, costs most of a second
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    gc.freeze()
    gc.enable()
    ranks, before = os.environ.get(RANKS), kills()
    if ranks and "LOGLEVEL" not in os.environ:  # torchrun's own variable for how much it says
        logging.disable(logging.ERROR)  # that a rank failed is told by the rank and the launcher, once
    try:
        torchrun(keep_to_loopback(sys.argv[1:]))
    except ChildFailedError as error:
        # In the order in which torchrun saw them end.
        ended = [(rank, failed.exitcode, failed.timestamp) for rank, failed in error.failures.items()]
        if ranks:
            Path(ranks).write_text(json.dumps(ended))
        else:
            print(error, file=sys.stderr)
            first = for_memory(first_failed(ended), kills() - before)
            if first.code is ExitCode.OUT_OF_MEMORY:
                correct(first.code, first.message)
            if first.code is ExitCode.PREEMPTED:
                sys.exit(128 + signal.SIGTERM)
            witness(first.code, first.message)
        sys.exit(ExitCode.BUG)
    except SignalException as told:
        sys.exit(128 + told.sigval)  # its ranks were told, and have left
    except Exception as error:
        if not ranks:
            witness(ExitCode.BUG, f"torchrun failed: {error}")
        raise


if __name__ == "__main__":
    main()
