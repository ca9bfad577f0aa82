"""Entry of every rank: torchrun --nproc_per_node=N train/main.py [key=value ...]"""

import gc
import os
import sys
import threading
import time
from pathlib import Path

if not __package__:
    # A script's own folder comes first on the path, where train/'s modules would shadow others' and `train` is not found.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

gc.disable()  # collecting while tens of thousands of functions are imported costs half a second; job.run turns it on

from train.compose import Composed, compose
from train.config import check
from train.outcome import ConfigError, ExitCode
from train.place import Place

_LAUNCHER_S = 5.0  # how long a rank waits, after an agreed error, for rank 0 to speak and the launcher to end the rest


def main() -> None:
    """Train. Ends the process with one of the exit codes in `train.outcome`."""
    started = time.time()
    leads = os.environ.get("RANK", "0") == "0"
    try:
        place = Place.from_environment(os.environ)
        composed = compose(sys.argv[1:])
        if composed is None:
            sys.exit(ExitCode.FINISHED)
        check(composed.config, place.size)
    except ConfigError as error:
        _refuse(error, leads)
    else:
        sys.exit(_train(composed, place, started))


def _train(composed: Composed, place: Place, started: float) -> ExitCode:
    """Join the ranks and run; torch is imported only now, so that a typo costs no seconds."""
    from train import job, logs
    from train.build import check_targets, targets
    from train.failure import ending
    from train.world import join

    logs.to_console(place.leads, os.environ)
    try:
        check_targets(composed.config, targets(composed.config, composed.foreign))
        world = join(place, composed.config.world, composed.config.train.deterministic)
    except ConfigError as error:
        _refuse(error, place.leads)
    with ending(world):
        job.run(composed, world, started)
    return ExitCode.FINISHED


def _refuse(error: ConfigError, leads: bool) -> "None":
    """Rank 0 speaks for all, which raise the same; the others hold still meanwhile."""
    if leads:
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        threading.Event().wait(_LAUNCHER_S)
    os._exit(ExitCode.CONFIG)


if __name__ == "__main__":
    main()
