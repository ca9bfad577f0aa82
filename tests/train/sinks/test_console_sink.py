"""What a person sees, on a real terminal and off it, and that nothing about their screen can stop a run."""

import io
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from phalanx.train.sinks.console import Console

ROOT = Path(__file__).resolve().parents[3]
LINE = {"step": 40, "split": "train", "time": 1.0, "loss": 0.4123, "accuracy": 0.87, "lr": 1e-3, "grad_norm": 2.0}
SPEED = {"samples_per_s": 2310.4, "step_time_s": 0.064, "data_wait_s": 0.0}
SUMMARY: dict[str, Any] = {
    "folder": "/runs/digits-0a1b",
    "steps": 225,
    "samples": 14400,
    "wall_s": 12.34,
    "goodput": 0.97,
    "weights_sha256": "ab" * 32,
    "eval": {"accuracy": 0.9812, "loss": 0.06},
}

# A run of 225 steps in no time, as a process: argument 1 is `interactive`, argument 2 makes it wait for its input.
RUN = f"""
import sys
from phalanx.common.stdio import wrap_streams
from phalanx.train.sinks.console import Console
wrap_streams()
console = Console(225, sys.stdout, eval(sys.argv[1]), lambda: 0.0)
for step in range(40, 226, 37):
    console.write({LINE | SPEED!r} | {{"step": step}})
    if step == 77:
        console.write({{"step": 77, "split": "eval", "time": 1.0, "loss": 0.3, "accuracy": 0.9}})
        console.event({{"time": 1.0, "event": "checkpoint", "step": 77, "path": "dépôt/[/x]✓"}})
        if len(sys.argv) > 2:
            print("half", file=sys.stderr, flush=True)
            sys.stdin.readline()
console.close({SUMMARY!r})
if len(sys.argv) > 2:
    print("what others print", flush=True)
"""


def plain(*lines: dict[str, object], seconds: Sequence[float] = (0.0,)) -> str:
    """What a console that is no terminal shows for `lines`, one at each of these `seconds`."""
    stream = io.StringIO()
    console = Console(225, stream, None, iter(seconds).__next__)
    for line in lines:
        console.write(line)
    return stream.getvalue()


class Screen:
    """A pseudo-terminal `columns` wide. What is written there is read at the end, as long as it fits its buffer."""

    def __init__(self, columns: int) -> None:
        self.reader, self.writer = pty.openpty()
        termios.tcsetwinsize(self.writer, (24, columns))

    def show(self, *arguments: str, **environ: str) -> str:
        environ = {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "PATH": os.environ["PATH"], **environ}
        ends = {"stdin": self.writer, "stdout": self.writer, "stderr": self.writer}
        with subprocess.Popen([sys.executable, "-c", RUN, *arguments], cwd=ROOT, env=environ, **ends) as run:  # type: ignore[call-overload]
            os.close(self.writer)
            shown = b"".join(iter(self._read, b""))
        os.close(self.reader)
        assert run.returncode == 0, shown
        return shown.decode()

    def _read(self) -> bytes:
        try:
            return os.read(self.reader, 1 << 16)
        except OSError:  # how Linux says that the last writer has closed
            return b""


def test_off_a_terminal_a_log_is_one_plain_line() -> None:
    assert plain(LINE | SPEED) == ("step 40/225  loss 0.412  accuracy 0.87  lr 1.0e-03  2,310 samples/s  ETA 0:12\n")


def test_without_an_accuracy_the_first_other_metric_is_shown() -> None:
    line = {"step": 40, "split": "train", "time": 1.0, "loss": 3.0, "lr": 1e-3, "perplexity": 20123.4, "other": 1.0}
    assert plain(line) == "step 40/225  loss 3  perplexity 20,123  lr 1.0e-03\n"


def test_numbers_that_are_missing_or_not_finite_are_shown_as_such() -> None:
    line = {
        "step": 1,
        "split": "train",
        "time": 1.0,
        "loss": float("nan"),
        "accuracy": None,
        "step_time_s": float("inf"),
    }
    assert plain(line) == "step 1/225  loss nan  accuracy -\n"


def test_the_time_to_go_follows_the_clock_not_the_bare_steps() -> None:
    """100 s for 10 steps, evaluation included, makes 175 more steps 1,750 s, though a step alone takes 0.064 s."""
    later = LINE | SPEED | {"step": 50}
    assert plain(LINE | SPEED, later, seconds=[5.0, 105.0]).endswith("ETA 29:10\n")


def test_evaluations_and_events_are_lines_of_their_own() -> None:
    stream = io.StringIO()
    console = Console(225, stream, None, lambda: 0.0)
    console.write({"step": 225, "split": "eval", "time": 1.0, "loss": 0.06, "accuracy": 0.9812, "samples_per_s": 9.0})
    console.event({"time": 1.0, "event": "rollback", "step": 77, "rank": 1, "text": "Traceback:\n  line " + "x" * 999})
    first, second = stream.getvalue().splitlines()
    assert first == "eval at step 225/225  loss 0.06  accuracy 0.981"
    assert second.startswith("rollback at step 77/225  rank 1  text Traceback: line xxx")
    assert len(second) < 240


def test_numbers_of_a_list_are_told_apart_and_none_is_cut_in_half() -> None:
    stream, indices = io.StringIO(), list(range(1000, 1064))
    Console(225, stream, None, lambda: 0.0).event({"event": "skip", "step": 7, "indices": indices})
    listed = stream.getvalue().removeprefix("skip at step 7/225  indices ").removesuffix(", ...\n").split(", ")
    assert 20 < len(listed) < 64
    assert [int(word) for word in listed] == indices[: len(listed)]


def test_no_text_can_control_the_terminal() -> None:
    stream = io.StringIO()
    Console(225, stream, None, lambda: 0.0).event({"event": "start", "step": 0, "name": "\x1b[2Jgone\r\x07"})
    assert stream.getvalue() == "start at step 0/225  name \\x1b[2Jgone \\x07\n"


def test_at_the_end_it_says_what_came_out_and_where() -> None:
    stream = io.StringIO()
    Console(225, stream, None, lambda: 0.0).close(SUMMARY)
    shown = stream.getvalue()
    for text in (
        "steps 225",
        "12.3 s in all",
        "goodput 0.97",
        "accuracy 0.981",
        "loss 0.06",
        "ab" * 32,
        "/runs/digits-0a1b",
    ):
        assert text in shown


def test_a_run_that_did_not_finish_shows_no_results() -> None:
    stream = io.StringIO()
    Console(225, stream, None, lambda: 0.0).close(None)
    assert stream.getvalue() == ""


def test_a_terminal_has_one_live_line_with_evaluations_above_it() -> None:
    shown = Screen(columns=120).show("None")
    assert "\x1b[2K" in shown, "the line is drawn over itself"
    assert "━" in shown
    assert re.search(r"eval at step 77/225  loss 0.3  accuracy 0.9\r\n", shown)
    assert "checkpoint at step 77/225  path dépôt/[/x]✓\r\n" in shown
    assert "step 225/225  loss 0.412  accuracy 0.87  lr 1.0e-03  2,310 samples/s" in shown
    assert "step 188/225" not in shown, "it is drawn ten times a second at most"
    assert shown.rstrip().endswith("/runs/digits-0a1b")


def test_a_killed_run_leaves_the_cursor_visible() -> None:
    shown = Screen(columns=120).show("None")
    assert shown.rfind("\x1b[?25l") < shown.find("\x1b[?25h") < shown.find("step 40/225")


@pytest.mark.parametrize("columns", [1, 10, 40, 80])
def test_a_narrow_terminal_spares_parts_of_the_live_line_the_time_to_go_last_and_cuts_nothing_else(
    columns: int,
) -> None:
    shown = Screen(columns=columns).show("None")
    assert "checkpoint at step 77/225 path dépôt/[/x]✓" in " ".join(shown.split()), "broken between words alone"
    parts = [re.sub(r"\x1b\[[\d;?]*\w", "", part) for part in re.split(r"\r?\x1b\[2K|\r\n", shown)]
    live = [part for part in parts if re.match("[━╸╺ ]*step ", part)]
    assert live or columns < 5
    assert all(len(part) <= columns for part in live)
    assert columns < 40 or all(re.search(r"loss 0\.412.*  ETA \d+:\d\d$", part) for part in live), live


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines() -> None:
    shown = Screen(columns=120).show("None", TERM="dumb")
    assert "\x1b" not in shown
    assert "step 114/225" in shown


@pytest.mark.parametrize("interactive", ["False", "True"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_any_encoding_will_do(interactive: str, encoding: str) -> None:
    environ = os.environ | {"PYTHONIOENCODING": encoding}
    ended = subprocess.run([sys.executable, "-c", RUN, interactive], cwd=ROOT, capture_output=True, env=environ)
    assert ended.returncode == 0, ended.stderr
    assert "path dépôt/[/x]?".encode(encoding, "replace") in ended.stdout
    assert b"/runs/digits-0a1b" in ended.stdout


@pytest.mark.parametrize("interactive", ["False", "True"])
def test_a_reader_that_goes_away_does_not_end_the_run(interactive: str) -> None:
    command = [sys.executable, "-c", RUN, interactive, "pause"]
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **ends) as run:  # type: ignore[call-overload]
        assert run.stderr.readline() == b"half\n"
        run.stdout.close()
        run.stdin.write(b"go on\n")
        run.stdin.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


def test_a_terminal_that_is_closed_does_not_end_the_run() -> None:
    screen, writer = pty.openpty()
    command = [sys.executable, "-c", RUN, "None", "pause"]
    ends = {"stdin": subprocess.PIPE, "stdout": writer, "stderr": subprocess.PIPE}
    environ = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, env=environ, **ends) as run:  # type: ignore[call-overload]
        os.close(writer)
        assert run.stderr.readline() == b"half\n"
        os.close(screen)
        run.stdin.write(b"go on\n")
        run.stdin.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


def test_nothing_heavy_is_imported_where_it_is_not_used() -> None:
    program = f"""
import sys
sys.argv = ["", "False"]
exec({RUN!r})
import phalanx.train.sinks.jsonl, phalanx.train.sinks.tensorboard, phalanx.train.sinks.trackers.weights_and_biases
print(sorted({{"rich", "torch", "tensorboard", "wandb"}} & set(sys.modules)), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr == "[]\n"
