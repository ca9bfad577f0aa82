"""torchrun, which leaves how its ranks ended where the launcher looks for it: torchrun itself only ever ends with 1.

Takes torchrun's options.
"""

import os
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # a script's own folder would shadow other modules

import json
import logging

from launch.cause import ranks_file


def main() -> None:
    """Ends with 0, with 1 when a rank failed, and with a traceback when torchrun itself did."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    if "LOGLEVEL" not in os.environ:  # torchrun's own variable for how much it says
        logging.disable(logging.ERROR)  # that a rank failed is told by the rank and the launcher, once
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        # In the order in which torchrun saw them end.
        ended = [[rank, failed.exitcode, failed.timestamp] for rank, failed in error.failures.items()]
        if file := ranks_file(os.environ):
            file.write_text(json.dumps(ended))
        sys.exit(1)
    except SignalException:
        sys.exit(1)  # its ranks were told, and have left


if __name__ == "__main__":
    main()
