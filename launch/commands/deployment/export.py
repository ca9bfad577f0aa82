"""`phalanx export`: writes a run's model for another runtime, once it answers there as the trained one does."""

from collections.abc import Sequence
from pathlib import Path

import click

from phalanx.deployment.job import BEST, EXPORT
from phalanx.deployment.layout import DTYPES, FP32, INT8, MODELS, ONNX, TENSORRT
from phalanx.exit.codes import ConfigError

from .start import start


@click.command()
@click.argument("run")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--to", type=click.Choice([*MODELS]), required=True, help="The format.")
@click.option("--which", default=BEST, show_default=True, metavar="best|last|STEP", help="The checkpoint.")
@click.option(
    "--dtype", type=click.Choice(DTYPES), default=FP32, show_default=True, help="Numbers of the exported model."
)
@click.option("--out", type=Path, metavar="FOLDER", help="Left out: RUN/export/FORMAT.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def export(run: str, overrides: Sequence[str], to: str, which: str, dtype: str, out: Path | None, root: Path) -> None:
    """Write the model of RUN, a run's folder or its name, with its preprocessing, labels and a model card.

    It is loaded back in its own runtime and compared with the trained model: outputs on real inputs in batches of 1, 7 and
    others, and the metrics of the whole evaluation set. Where they differ by more than a stated tolerance the exit code is
    1 and nothing is kept. Prints the comparison as a line of JSON.

    Classes of your own are built where run.trust=[mypkg] is typed.
    """
    if dtype == INT8 and to != ONNX:
        raise ConfigError(f"--dtype int8 is for --to onnx, whose runtime quantizes, and --to {to} has none. Type fp16")
    whole = None if out is None else str(out.absolute())
    words = overrides if to == TENSORRT else ["world.device=cpu", *overrides]
    start(EXPORT, run, root, which, words, 1, to=to, dtype=dtype, out=whole)
