"""`phalanx predict`: what a run or an export predicts of pictures, texts, sounds, pairs, as JSON lines."""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from phalanx.common.files import write_atomic
from phalanx.deployment.job import BEST, PREDICT
from phalanx.deployment.layout import MANIFEST
from phalanx.exit.codes import ConfigError, ExitCode

from ...common.find_run import find_run
from ...common.show import show
from .export_program import export_arguments, run_program, split_words
from .start import answered


@click.command()
@click.argument("source")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option("--lines", metavar="FILE", help="A file with an input a line; - for standard input.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Inputs a call of the model.")
@click.option(
    "--top", type=click.IntRange(min=1), default=1, show_default=True, help="So many of the likeliest classes."
)
@click.option("--files", type=Path, metavar="FOLDER", help="Where sounds and masks are written.")
@click.option("--output", type=Path, metavar="FILE", help="Left out: standard output.")
@click.option("--which", default=BEST, show_default=True, metavar="best|last|STEP", help="The checkpoint of a run.")
@click.option("--root", type=Path, default=Path("runs"), show_default=True, help="The folder that holds the runs.")
def predict(
    source: str,
    inputs: Sequence[str],
    lines: str | None,
    batch: int,
    top: int,
    files: Path | None,
    output: Path | None,
    which: str,
    root: Path,
) -> None:
    """Predict by SOURCE, a run's folder or its name, or the folder of an export, such as runs/digits/export/onnx.

    An INPUT is the path of a picture or of a sound, a folder of them, a text, numbers, or a pair such as 17,42, as the
    model was trained. Prints a line of JSON for each, in their order: input, prediction, and score where there is one; or
    error, and the exit code is 1 then. How long it took is told on standard error.

    Among the inputs may stand run.trust=[mypkg], where classes of your own are to be built, world.device=cuda and
    train.threads=2.
    """
    typed, words = split_words(inputs)
    asked = [*typed, *(_lines(lines) if lines is not None else ())]
    if not asked:
        raise ConfigError("There is nothing to predict. Type an input, such as the path of a picture, or --lines FILE")
    if files is not None:
        files.mkdir(parents=True, exist_ok=True)
    options = {"batch": batch, "top": top, "files": None if files is None else str(files)}
    if (Path(source) / MANIFEST).is_file():
        if which != BEST:
            raise ConfigError(
                f"--which={which} is a checkpoint of a run, and {source} is an export of one. Leave it out"
            )
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        code, text = run_program(
            "prediction.predict_export",
            [*export_arguments(Path(source), words), *given],
            "\0".join(asked),
            keep=output is not None,
        )
        if output is not None and code in (ExitCode.FINISHED, ExitCode.BUG) and text:
            write_atomic(output, text)
        sys.exit(code)
    with tempfile.TemporaryDirectory(prefix="phalanx-inputs-") as aside:
        file = Path(aside, "inputs")
        file.write_text("\0".join(asked), encoding="utf-8", errors="surrogateescape")
        answer = answered(PREDICT, find_run(source, root), which, words, 1, **options, inputs=str(file))
    if output is not None:
        write_atomic(output, answer)
    else:
        show(answer.removesuffix("\n"))
    failed = any("error" in json.loads(line) for line in answer.splitlines())
    sys.exit(ExitCode.BUG if failed else ExitCode.FINISHED)


def _lines(name: str) -> list[str]:
    """The inputs of a file, one a line. Raises ConfigError."""
    try:
        octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = octets.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"--lines={name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--lines={name} is not UTF-8, at byte {error.start}. Save it as UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"--lines={name} is no text: it holds a zero byte, at character {text.index(chr(0))}")
    if not text:
        return []
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
