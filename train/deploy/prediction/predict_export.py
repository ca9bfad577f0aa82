"""The program of `phalanx predict EXPORT`: predict by an export, in its own runtime. No run, no data set, no ranks."""

import argparse
import sys
from pathlib import Path

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.interpreter_exit import run_without_teardown
from phalanx.exit.messages import refuse, say

from ..runtimes.load_export import LoadedExport, load_export
from .answers import Answers
from .lines import Timing, predict_lines
from .predictor import FormPredictor
from .raw_inputs import RawInputs
from .typed_inputs import expanded


def predictor_of(loaded: LoadedExport, folder: Path, top: int) -> FormPredictor:
    """Raises ConfigError where the export's files cannot be used."""
    manifest = loaded.manifest
    dtypes = {info.name: info.dtype for info in manifest.inputs}
    shapes = {info.name: info.shape for info in manifest.inputs}
    inputs = RawInputs(loaded.preprocessing, dtypes, shapes, folder)
    return FormPredictor(inputs, loaded.runtime, Answers(manifest.postprocessing, loaded.labels, top))


def main() -> None:
    """Reads the inputs from standard input, a zero byte between two, and prints a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--top", type=int, default=1)
    parser.add_argument("--files", type=Path)
    asked = parser.parse_args()
    try:
        loaded = load_export(asked.folder, asked.device, asked.trust, asked.threads)
        predictor = predictor_of(loaded, asked.folder, asked.top)
        typed = expanded(sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\0"), predictor.kinds)
        timing = Timing(asked.batch)
        for lines in predict_lines(predictor, typed, timing, asked.files):
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()
    except ConfigError as error:
        refuse(error, True)
    say(timing.told())
    sys.exit(ExitCode.BUG if timing.failed else ExitCode.FINISHED)


if __name__ == "__main__":
    run_without_teardown(main)
