"""`phalanx.run`: trains from Python as `phalanx run` does, in processes of its own, and gives back the run."""

import os
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from phalanx.common.files import read_json
from phalanx.exit import cause_file, folder_file
from phalanx.exit.codes import ConfigError, ExitCode

from .command import run_command
from .load import Run, load
from .python_path import python_path


class RunFailed(RuntimeError):  # noqa: N818 - the contract's name
    """A run that did not finish.

    `code` is the exit code (`phalanx.exit.codes`), `cause` says why in one message, and `run` is what its folder holds,
    None where it has none. Code 3 or 7 means that it was told to stop and has saved: the same call continues it.
    """

    def __init__(self, code: ExitCode, cause: str, run: Run | None) -> None:
        super().__init__(code, cause, run)
        self.code = code
        self.cause = cause
        self.run = run

    def __str__(self) -> str:
        return f"exit code {self.code}: {self.cause}"


def run(
    *overrides: str,
    ranks: int | None = None,
    source: str | Path | None = None,
    config_dir: str | Path | None = None,
    config_name: str | None = None,
    max_restarts: int | None = None,
    grace: int | None = None,
) -> Run:
    """Train as `phalanx run` does and return the run once it has finished, or if it is finished already.

    `overrides` are Hydra's, as on the command line: "train.steps=100". `ranks` is -n, by default one for each free GPU or
    one on the CPU; `source` is --from, a run folder whose config is replayed; `grace` is in seconds; each left out is as
    the command decides. Ranks are processes of their own, which import what this one can import from files, so a class of
    yours has to stand in a module, such as one beside the notebook or script. What they print is printed here, line by
    line.

    An interrupt, Ctrl-C or a notebook's stop button, lets the run save and leave, and is raised on then as
    KeyboardInterrupt; a second one ends it at once. Where this process dies, the run saves and leaves. The run that is
    returned builds the classes that you named; one of `source` or another `config_name` only those that run.trust names.

    Raises RunFailed with the exit code and its cause for whatever else keeps the run from finishing: a bad override (code
    2), an error in your code (1), a stop by `phalanx stop` (7) or a signal (3), after which the same call goes on.
    """
    options = {
        "--ranks": ranks,
        "--from": source,
        "--config-dir": config_dir,
        "--config-name": config_name,
        "--max-restarts": max_restarts,
        "--grace": grace,
    }
    _check(overrides)
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    with tempfile.TemporaryDirectory(prefix="phalanx-run-") as name:
        cause, folder = Path(name, "cause.json"), Path(name, "folder.json")
        files = {cause_file.VARIABLE: str(cause), folder_file.VARIABLE: str(folder)}
        returned, last = run_command(
            ["run", f"--caller={os.getpid()}", *words, "--", *overrides],
            {**os.environ, **files, "PYTHONPATH": python_path(os.environ)},
        )
        code, why, found = _code(returned), _cause(cause, returned, last), _run_of(folder)
    if code is ExitCode.FINISHED and found is not None:
        return found
    raise RunFailed(code, why, found)


def _check(overrides: Sequence[str]) -> None:
    for word in overrides:
        if not isinstance(word, str):
            raise TypeError(
                f"{word!r} is no text. Overrides are written as on the command line, such as 'train.steps=100', and name "
                "a class by where it stands, such as 'model._target_=mymodule.Net'"
            )
        if word.startswith("-"):
            hint = "phalanx.run takes overrides, and options by keyword, such as ranks=2 or config_dir='conf'"
            raise RunFailed(ExitCode.CONFIG, f"{word} is an option of the command line: {hint}", None)


def _code(returned: int) -> ExitCode:
    return ExitCode(returned) if returned in set(ExitCode) else ExitCode.BUG


def _cause(file: Path, returned: int, last: str) -> str:
    """What the command left; where it died or did not understand its options, how it ended and the `last` line."""
    told = read_json(file)
    if isinstance(told, dict) and told.get("code") == returned:
        return str(told["message"])
    if returned < 0:
        return f"phalanx run was killed by {signal.Signals(-returned).name}"
    return last or f"phalanx run ended with code {returned}"


def _run_of(file: Path) -> Run | None:
    """The run in the folder that rank 0 told of, if there is one by now."""
    told = read_json(file)
    if told is not None:
        with suppress(ConfigError):
            return Run(load(Path(told["folder"])).folder, told["trust"])
    return None
