"""The program of `phalanx predict EXPORT`: predict by an export, in its own runtime. No run, no data set, no ranks."""

import sys
from pathlib import Path

from phalanx.exit.codes import ConfigError, ExitCode
from phalanx.exit.interpreter_exit import run_without_teardown
from phalanx.exit.messages import refuse, say

from .export_predictor import export_parser, loaded, predictor_of
from .lines import Timing, predict_lines
from .typed_inputs import expanded


def main() -> None:
    """Reads the inputs from standard input, a zero byte between two, and prints a line of JSON for each."""
    parser = export_parser()
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--top", type=int, default=1)
    parser.add_argument("--files", type=Path)
    asked = parser.parse_args()
    try:
        predictor = predictor_of(loaded(asked), asked.folder, asked.top)
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
