"""A process that skips the teardown of its interpreter does all else that an exit does."""

import atexit
import os
import pstats
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from phalanx.models import MLP
from phalanx.run_folder import names
from tests.ranks import ROOT, Starter

_SCRIPT = f"""
import atexit, ctypes, os, sys, threading, weakref
sys.path.insert(0, {str(ROOT)!r})
from phalanx.exit.interpreter_exit import run_without_teardown

class Freed:
    def __del__(self):
        print("freed")

def late():
    threading.Event().wait(0.2)
    print("joined")

def remove_operators():
    print("removed")

def main():
    global file
    atexit.register(print, "last")
    atexit.register(print, "first")
    weakref.finalize(run_without_teardown, print, "finalized")
    weakref.finalize(run_without_teardown, (1).__add__, 2)
    weakref.finalize(run_without_teardown, remove_operators)
    threading.Thread(target=late).start()
    print("no newline", end=" ")
    {{leave}}

kept = Freed()
remove_operators.__module__ = "torch.library"
{{before}}
run_without_teardown(main)
"""
_UNSET = ("LD_PRELOAD", "CUDA_INJECTION64_PATH", "PYTHONUNBUFFERED")


def script(tmp_path: Path, leave: str, before: str = "") -> str:
    path = tmp_path / "script.py"
    path.write_text(_SCRIPT.format(leave=leave, before=before))
    return str(path)


def run(*argv: str, environ: Mapping[str, str] | None = None, **options: Any) -> "subprocess.CompletedProcess[str]":
    env = {**{name: value for name, value in os.environ.items() if name not in _UNSET}, **(environ or {})}
    whole: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, *argv], env=env, text=True, timeout=60, **whole)


@pytest.mark.parametrize(
    ("leave", "code"),
    [("sys.exit(7)", 7), ("sys.exit()", 0), ("pass", 0), ("sys.exit(-1)", 255), ("sys.exit(True)", 1)],
)
def test_threads_end_handlers_are_called_and_what_was_printed_is_there(tmp_path: Path, leave: str, code: int) -> None:
    ended = run(script(tmp_path, leave))
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ended.stdout.split("\n") == ["no newline joined", "finalized", "first", "last", ""]


@pytest.mark.parametrize(
    ("leave", "code", "said"),
    [("sys.exit('words')", 1, "words\n"), ("raise ValueError", 1, "ValueError\n"), ("sys.exit(2**70)", 255, "")],
)
def test_what_the_interpreter_tells_at_exit_it_tells(tmp_path: Path, leave: str, code: int, said: str) -> None:
    ended = run(script(tmp_path, leave))
    assert ended.returncode == code
    assert ended.stderr.endswith(said)


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = run(script(tmp_path, "sys.exit(7)"), stdout=full)
    assert ended.returncode == 120
    assert "No space left on device" in ended.stderr


def test_a_file_that_nobody_has_closed_holds_all_that_was_written(tmp_path: Path) -> None:
    """As that of a data set which keeps a log of its own."""
    ended = run(script(tmp_path, f"file = open({str(tmp_path / 'log')!r}, 'w'); file.write('text'); sys.exit(7)"))
    assert (ended.returncode, ended.stderr, (tmp_path / "log").read_text()) == (7, "", "text")


def test_what_a_library_in_c_has_printed_is_there(tmp_path: Path) -> None:
    ended = run(script(tmp_path, "ctypes.CDLL(None).printf(b'text')"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("text")


def test_a_thread_that_reads_from_a_terminal_does_not_hold_the_process(tmp_path: Path) -> None:
    """It holds the lock of a stream of C, which to flush all of them would wait for."""
    terminal, end = pty.openpty()
    waits = "threading.Thread(target=input, daemon=True).start(); threading.Event().wait(0.5); sys.exit(7)"
    assert run(script(tmp_path, waits), stdin=end, stdout=end, stderr=end).returncode == 7
    os.close(end)
    os.close(terminal)


def test_without_proc_it_is_an_exit_like_any(tmp_path: Path) -> None:
    ended = run(script(tmp_path, "sys.exit(7)", "os.listdir = lambda path: open(path)"))
    assert (ended.returncode, "removed" in ended.stdout) == (7, True)


@pytest.mark.parametrize(("then", "code"), [("sys.exit(5)", 5), ("raise ValueError", 1), ("pass", 0)])
@pytest.mark.parametrize("how", ["run_path({script!r}, ", "run_module('script', alter_sys=True, "])
def test_whoever_runs_it_within_a_program_ends_as_it_likes(tmp_path: Path, how: str, then: str, code: int) -> None:
    runs = how.format(script=script(tmp_path, "sys.exit(7)"))
    program = f"import runpy, sys\ntry:\n runpy.{runs}run_name='__main__')\nexcept SystemExit:\n pass\n{then}"
    assert run("-c", program, cwd=tmp_path).returncode == code


def test_a_profiler_that_starts_the_process_writes_what_it_measured(tmp_path: Path) -> None:
    ended = run("-m", "cProfile", "-o", str(tmp_path / "profile"), script(tmp_path, "sys.exit(7)"))
    assert "finalized\n" in ended.stdout
    found = pstats.Stats(str(tmp_path / "profile")).get_stats_profile().func_profiles
    assert "run_without_teardown" in found


def test_a_profiler_that_libc_calls_at_exit_is_called(tmp_path: Path) -> None:
    """libc's handlers come after the interpreter's teardown, which is seen here."""
    ended = run(script(tmp_path, "sys.exit(7)"), environ={"CUDA_INJECTION64_PATH": "libprofiler.so"})
    assert (ended.returncode, ended.stdout.split("\n")[-2]) == (7, "freed")


class _Freed:
    def __init__(self, touch: Any) -> None:
        self._touch = touch

    def __del__(self) -> None:
        self._touch()


class Leaving(MLP):
    """A model that leaves something to do at exit, a thread that is no daemon, and what a teardown frees."""

    def __init__(self, inputs: int, hidden: list[int], classes: int, dropout: float) -> None:
        import threading

        super().__init__(inputs, hidden, classes, dropout)
        atexit.register(Path("at-exit").touch)
        sys.modules["freed"] = _Freed(Path("freed").touch)  # type: ignore[assignment]
        rank = threading.main_thread()
        threading.Thread(target=rank.join, name="late").start()


def test_a_rank_calls_what_a_model_registered_waits_for_its_threads_and_frees_nothing(starter: Starter) -> None:
    run = starter.train(1, "model=mlp", f"model._target_={__name__}.Leaving", "train.steps=1", name="r")
    assert (starter.folder / "at-exit").exists()
    assert not (starter.folder / "freed").exists()
    assert "no daemons: late" in (run.folder / names.LOGS / names.rank_log(0)).read_text()
