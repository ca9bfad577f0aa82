"""Attribute an exception to the user's code: file and line, and the current step, sample and batch.

Frames of Phalanx and torch are stripped from tracebacks: a wrong shape is rarely the trainer's bug.
"""

import inspect
import os
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SITE = ("site-packages", "dist-packages")
_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_STANDARD = f"{sysconfig.get_paths()['stdlib']}{os.sep}"
_LISTED = 8  # samples of a batch that a message names
_WRITTEN = "circumstances"  # attribute of an exception that holds the facts of `add_context`


def context(**facts: object) -> "_Context":
    """Add `facts`, such as step=17, to an exception that is raised inside."""
    return _Context(facts)


class _Context:
    def __init__(self, facts: dict[str, object]) -> None:
        self._facts = facts

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            add_context(error, **self._facts)


def add_context(error: BaseException, **facts: object) -> None:
    """Add facts to an exception; a fact that is set already stays."""
    setattr(error, _WRITTEN, {**facts, **context_of(error)})


def context_of(error: BaseException) -> dict[str, Any]:
    """The facts of an exception, the outermost context first."""
    found: dict[str, Any] = getattr(error, _WRITTEN, {})
    return found


def user_line(error: BaseException) -> str | None:
    """The innermost user frame of the traceback, such as "mypkg/curves.py:31 in ratios"; None if there is none."""
    if "line" in context_of(error):  # it came from another process
        return context_of(error)["line"]  # type: ignore[no-any-return]
    frames = _of_user(traceback.extract_tb(error.__traceback__))
    own = [frame for frame in frames if not _is_installed(frame.filename)] or frames
    return f"{_short(own[-1].filename)}:{own[-1].lineno} in {own[-1].name}" if own else None


def own_line(error: BaseException) -> str | None:
    """As `user_line`, but None where no frame is in a file of the user's own, only in installed packages."""
    frames = [
        frame for frame in _of_user(traceback.extract_tb(error.__traceback__)) if not _is_installed(frame.filename)
    ]
    return f"{_short(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name}" if frames else None


def is_of_library(error: BaseException) -> bool:
    """Whether an installed package that is not torch raised it, called by no code of the user's own."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1] in _of_user(frames) and own_line(error) is None


def is_below_call(error: BaseException) -> bool:
    """Whether what Phalanx called raised it, and all of its frames are in installed packages or the standard library."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    while files and files[0].startswith(_OURS):
        del files[0]
    return bool(files) and all(
        file.startswith("<") or _is_installed(file) or file.startswith(_STANDARD) for file in files
    )


def place_of(function: Any) -> str | None:
    """Where a function or method of the user's begins, such as "mypkg/curves.py:29"; None for one that is not theirs."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None or _is_ours(code.co_filename) else f"{_short(code.co_filename)}:{code.co_firstlineno}"


def message(error: BaseException) -> str:
    """Type and text of the exception, all lines."""
    return context_of(error).get("said") or "".join(traceback.format_exception_only(error)).strip()


def headline(error: BaseException) -> str:
    """Such as "in step 17 of 90, data.train's sample 42, batch (8, 3) float32, at mypkg/curves.py:31 in ratios"."""
    facts, line = context_of(error), user_line(error)
    step, sample, samples, batch = (facts.get(name) for name in ("step", "sample", "samples", "batch"))
    parts = [
        str(facts.get("act", "")),
        "" if step is None else f"in step {step}" if "act" not in facts else f"after step {step}",
        "" if sample is None else f"{facts.get('set', 'the data set')}'s sample {sample}",
        "" if samples is None else f"one of {facts.get('set', 'the data set')}'s samples {_listed(samples)}",
        "" if batch is None else f"batch {batch}",
        "" if "collate" not in facts else f"made by {facts['collate']}",
        "" if line is None else f"at {line}",
    ]
    said = ", ".join(part for part in parts if part)
    return said if parts[0] or parts[1] or said.startswith("at ") else f"with {said}" if said else ""


def _listed(samples: Sequence[int]) -> str:
    more = f" and {len(samples) - _LISTED} more" if len(samples) > _LISTED else ""
    return ", ".join(map(str, samples[:_LISTED])) + more


def user_traceback(error: BaseException) -> str:
    """The traceback with only the user's frames; the full one if there are none."""
    if "told" in context_of(error):
        return str(context_of(error)["told"])
    shown = traceback.TracebackException.from_exception(error)
    if not _of_user(shown.stack):
        return "".join(shown.format()).strip()
    _strip(shown)
    return "".join(shown.format()).strip()


def _strip(shown: traceback.TracebackException) -> None:
    shown.stack = traceback.StackSummary.from_list(_of_user(shown.stack))
    for chained in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if chained is not None:
            _strip(chained)


def _of_user(frames: Sequence[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [frame for frame in frames if not _is_ours(frame.filename)]


def _is_ours(file: str) -> bool:
    """Whether a frame is in Phalanx, torch, the standard library, or generated code ("<string>")."""
    if file.startswith(("<", _OURS)):
        return True
    return f"{os.sep}torch{os.sep}" in file if _is_installed(file) else file.startswith(_STANDARD)


def _is_installed(file: str) -> bool:
    return any(f"{os.sep}{site}{os.sep}" in file for site in _SITE)


def _short(file: str) -> str:
    """Relative to the working directory, if it is below it."""
    here = f"{os.getcwd()}{os.sep}"
    return file.removeprefix(here)
