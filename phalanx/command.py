"""The command `phalanx`, which finds the rest beside itself, whatever else on the user's path is called train or launch."""

import sys
from pathlib import Path


def main() -> None:
    """Entry of the console script."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import launch  # bound to ours from here on
    from train.own import step_aside

    step_aside(sys.path[0])
    assert launch.__path__
    from launch.cli import main as cli

    cli()
