"""`phalanx evaluate`: evaluates a run's weights once more, on its own evaluation sets or on others."""

from collections.abc import Sequence
from pathlib import Path

import click

from phalanx.deployment.job import BEST, EVALUATE

from .start import start


@click.command()
@click.argument("run")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    *("-n", "--ranks"),
    type=click.IntRange(min=1),
    help="Number of ranks. Left out: one for each free GPU, or 1 without GPUs.",
)
@click.option("--which", default=BEST, show_default=True, metavar="best|last|STEP", help="The checkpoint.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def evaluate(run: str, overrides: Sequence[str], ranks: int | None, which: str, root: Path) -> None:
    """Evaluate the weights of RUN, a run's folder or its name, on data.eval and data.test of its config.

    Prints a line of JSON for each split: step, split and the metrics, the same for any number of ranks. RUN is only read,
    and may go on meanwhile. KEY=VALUE set other data: data.eval.root=/other, eval.batch=64. Classes of your own are built
    where run.trust=[mypkg] is typed.
    """
    start(EVALUATE, run, root, which, overrides, ranks)
