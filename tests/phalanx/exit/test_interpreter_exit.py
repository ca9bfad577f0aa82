"""A process that skips the teardown of its interpreter does all else that an exit does."""

import atexit
import os
import pstats
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from phalanx.models import MLP
from tests.ranks import ROOT, Starter

_SCRIPT = f"""
import atexit, sys, threading, time, weakref
sys.path.insert(0, {str(ROOT)!r})
from phalanx.exit.interpreter_exit import skip_teardown

class Freed:
    def __del__(self):
        print("freed")

def late():
    threading.Event().wait(0.2)
    print("joined")

kept = Freed()
weakref.finalize(skip_teardown, print, "finalized")

def remove_operators():
    print("removed")

remove_operators.__module__ = "torch.library"
weakref.finalize(skip_teardown, remove_operators)
with skip_teardown():
    with skip_teardown():  # as in a rank, which is forked within
        atexit.register(print, "last")
        atexit.register(print, "first")
        threading.Thread(target=late).start()
        print("no newline", end=" ")
        {{leave}}
"""


def left(
    tmp_path: Path, leave: str, *options: str, environ: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(leave=leave))
    command = [sys.executable, *options, str(script)]
    unset = ("LD_PRELOAD", "CUDA_INJECTION64_PATH", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(command, env={**kept, **(environ or {})}, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("leave", "code"), [("sys.exit(7)", 7), ("sys.exit()", 0), ("pass", 0), ("sys.exit(-1)", 255)])
def test_threads_end_handlers_are_called_and_what_was_printed_is_there(tmp_path: Path, leave: str, code: int) -> None:
    ended = left(tmp_path, leave)
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ended.stdout.split("\n") == ["no newline joined", "first", "last", "finalized", ""]


@pytest.mark.parametrize(("leave", "said"), [("sys.exit('words')", "words\n"), ("raise ValueError", "ValueError\n")])
def test_what_the_interpreter_prints_at_exit_it_prints(tmp_path: Path, leave: str, said: str) -> None:
    ended = left(tmp_path, leave)
    assert ended.returncode == 1
    assert ended.stderr.endswith(said)


def test_a_file_that_nobody_has_closed_holds_all_that_was_written(tmp_path: Path) -> None:
    """As that of a model which keeps a log of its own."""
    ended = left(tmp_path, f"file = open({str(tmp_path / 'log')!r}, 'w'); file.write('text'); sys.exit(7)")
    assert (ended.returncode, ended.stderr, (tmp_path / "log").read_text()) == (7, "", "text")


def test_what_a_library_in_c_has_printed_is_there(tmp_path: Path) -> None:
    ended = left(tmp_path, "import ctypes; ctypes.CDLL(None).printf(b'text')")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("text")


def test_a_profiler_that_starts_the_process_writes_what_it_measured(tmp_path: Path) -> None:
    ended = left(tmp_path, "sys.exit(7)", "-m", "cProfile", "-o", str(tmp_path / "profile"))
    assert ended.stdout.endswith("finalized\n")
    found = pstats.Stats(str(tmp_path / "profile")).get_stats_profile().func_profiles
    assert "skip_teardown" in found


def test_a_profiler_that_libc_calls_at_exit_is_called(tmp_path: Path) -> None:
    """libc's handlers come after the interpreter's teardown, which is seen here."""
    ended = left(tmp_path, "sys.exit(7)", environ={"CUDA_INJECTION64_PATH": "libprofiler.so"})
    assert (ended.returncode, ended.stdout.split("\n")[-2]) == (7, "freed")


class Registering(MLP):
    """A model that leaves something to do at exit."""

    def __init__(self, inputs: int, hidden: list[int], classes: int, dropout: float) -> None:
        super().__init__(inputs, hidden, classes, dropout)
        atexit.register(Path("at-exit").touch)


def test_a_rank_calls_what_a_model_registered(starter: Starter) -> None:
    starter.train(1, "model=mlp", f"model._target_={__name__}.Registering", "train.steps=1", name="r")
    assert (starter.folder / "at-exit").exists()
