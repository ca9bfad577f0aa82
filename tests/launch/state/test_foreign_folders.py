"""A folder that somebody else wrote, or is deleting, neither ends a verb nor moves a cursor nor has a process signalled."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from phalanx.common.escaping import printable
from phalanx.exit.codes import ConfigError
from phalanx.launch.cli import VERBS
from phalanx.launch.common import find_run
from phalanx.launch.host.processes import send_signal
from phalanx.system.process_identity import machine_id
from tests.ranks import ROOT

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp\r\x08"
FILES = ("summary.json", "metrics.jsonl", "events.jsonl", "sweep.json", "lease/00000001.json", "lease", "checkpoints")
NOW = 1.7e9


def verb(*argv: str) -> tuple[int, str]:
    """Exit code and output of a verb, as `phalanx` runs it."""
    module = __import__(f"phalanx.launch.commands.{argv[0]}", fromlist=[argv[0]])
    done = CliRunner().invoke(getattr(module, argv[0]), argv[1:])
    if isinstance(done.exception, ConfigError):
        return 2, printable(str(done.exception))  # as `say` does
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def made(folder: Path, **events: object) -> Path:
    """A run of one step."""
    (folder / "lease").mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "resolved.yaml").touch()
    begun = {"time": NOW, "event": "start", "step": 0, "steps": 9, **events}
    (folder / "events.jsonl").write_text(json.dumps(begun) + "\n")
    (folder / "metrics.jsonl").write_text(json.dumps({"time": NOW, "split": "train", "step": 1, "loss": 0.5}) + "\n")
    return folder


def remade(path: Path) -> Path:
    """Room for something odd at `path`."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    return path


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path.name),
    "nested": lambda path: path.write_text('{"event": ' + "[" * 50_000 + "\n"),
    "huge": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**42),
    "binary": lambda path: path.write_bytes(b"\xff\0" * 5000 + b"\n"),
    "numbers": lambda path: path.write_text('{"time": 1e999, "step": -1, "event": {}, "rows": 5, "began": "x"}\n'),
}


def test_odd_folders_do_not_hide_the_others(tmp_path: Path) -> None:
    """Each file of a run in turn is something else, and none is waited for or read to an end that it has not."""
    made(tmp_path / "good")
    for name in FILES:
        for odd, make in ODD.items():
            make(remade(made(tmp_path / f"{name.replace('/', '-')}-{odd}") / name))
    submitted = tmp_path / ".submitted" / "odd"
    submitted.mkdir(parents=True)
    os.mkfifo(submitted / "submission.json")
    began_s = time.process_time()
    code, output = verb("status", "--root", str(tmp_path))
    assert time.process_time() - began_s < 20, "what has no end was read on and on"
    assert code == 0
    assert len(output.splitlines()) == 2 + len(FILES) * len(ODD)
    assert "good " in output
    assert verb("status", "--json", "--root", str(tmp_path))[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_runs_that_are_not_shown_to_us_are_told_as_such(tmp_path: Path) -> None:
    """As with umask 077; a run of another user is neither stopped nor cancelled with a traceback."""
    tmp_path.chmod(0o755)
    for parent in [folder for folder in tmp_path.parents if folder.name.startswith(("pytest-", "popen-"))]:
        parent.chmod(0o755)
    made(tmp_path / "good")
    closed = made(tmp_path / "closed")
    for path in (closed / "lease", closed / "logs"):
        path.chmod(0o700)
    for path in (closed / "metrics.jsonl", closed / "events.jsonl"):
        path.chmod(0o600)
    with nobody():
        code, output = verb("status", "--root", str(tmp_path))
        assert (code, "good" in output) == (0, True)
        assert "unreadable" in output
        assert "Permission denied" in output
        for words in (("stop", "closed"), ("cancel", "closed"), ("logs", "closed")):
            code, output = verb(*words, f"--root={tmp_path}")
            assert (code, output.count("\n")) == (2, 0), output
        code, output = verb("status", "--root", str(closed / "lease"))
        assert (code, "is closed to you" in output) == (2, True), output


def nobody() -> "AnotherUser":
    return AnotherUser()


class AnotherUser:
    def __enter__(self) -> None:
        os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)


def test_run_that_is_deleted_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "good")
    gone = made(tmp_path / "gone")
    found = find_run.find_runs

    def finds_and_deletes(*args: object) -> list[Path]:
        runs: list[Path] = found(*args)  # type: ignore[arg-type]
        shutil.rmtree(gone)
        return runs

    monkeypatch.setattr("phalanx.launch.commands.status.find_runs", finds_and_deletes)
    code, output = verb("status", "--root", str(tmp_path))
    assert (code, len(output.splitlines())) == (0, 2)


def test_nothing_that_is_shown_of_a_folder_moves_a_cursor(tmp_path: Path, sleeper: int) -> None:
    """A colour, a title, a bell, an order of writing: whatever a terminal would obey is spelt out."""
    for name in ("run", f"named{ESCAPES}"):
        run = made(tmp_path / name, event=f"start{ESCAPES}")
        holds(run, sleeper, host=f"host{ESCAPES}", job=f"job{ESCAPES}", opened=False)
        (run / "logs" / "rank_0.log").write_text(f"log {ESCAPES}\tcolumn\n")
    sweep = tmp_path / f"sweep{ESCAPES}"
    sweep.mkdir()
    rows = [{"trial": 0, "state": "complete", "value": 1.0, "words": [f"a={ESCAPES}"]}]
    told = {"state": f"odd{ESCAPES}", "metric": ESCAPES, "rows": rows, "best": {"value": 1.0, "trial": ESCAPES}}
    (sweep / "sweep.json").write_text(json.dumps(told))
    seen = ""
    for words in (("status",), ("status", "--json"), ("logs", "run"), ("stop", "run", "--no-wait"), ("cancel", "run")):
        seen += verb(*words, f"--root={tmp_path}")[1]
    assert r"\x1b[2J" in seen
    assert r"host\x1b[2J" in seen
    assert "\tcolumn" in seen
    assert not [letter for letter in seen if not letter.isprintable() and letter not in "\n\t"]
    command = [sys.executable, "-m", "phalanx.launch.cli", "cancel", f"no{ESCAPES}"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr
    assert refused.startswith(r"error: no\x1b[2J")
    assert refused.rstrip("\n").isprintable()


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of this user's that has nothing to do with any run."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        assert process.poll() is None, "it was ended"
        process.kill()


def holds(run: Path, process: int, **facts: object) -> None:
    """A lease that names a process, down to its start."""
    began = int(Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[19])
    known = {"incarnation": 1, "host": "here", "machine": machine_id(), "pid": process, "began": began}
    (run / "lease" / "00000001.json").write_text(json.dumps({**known, **facts}))


def test_cancel_signals_no_process_that_a_file_only_names(tmp_path: Path, sleeper: int) -> None:
    for opened in (True, False):
        run = made(tmp_path / f"run-{opened}")
        holds(run, sleeper, opened=opened)
        code, output = verb("cancel", str(run))
        assert (code, output.count("\n")) == (2, 0)
        assert (
            "is not sent a signal" in output
        ) is not opened  # who would have the folder open does not hold it at all


@pytest.mark.parametrize("pid", [-1, 0, -(2**31)])
def test_cancel_of_a_lease_that_names_all_processes_ends_none(tmp_path: Path, pid: int, sleeper: int) -> None:
    run = made(tmp_path / "run")
    holds(run, sleeper, pid=pid, began=None)
    code, output = verb("cancel", str(run))
    assert code == 2
    assert "neither running nor queued" in output
    with pytest.raises(AssertionError):
        send_signal(pid, signal.SIGCONT)


def test_cancel_and_stop_of_a_copied_run_do_not_reach_the_original(tmp_path: Path) -> None:
    run, copy = made(tmp_path / "run"), tmp_path / "copy"
    program = (
        "import pathlib, signal, phalanx.run_folder.lease\n"
        f"with phalanx.run_folder.lease.acquire(pathlib.Path({str(run)!r}), 0, {{}}):\n"
        "    print(flush=True)\n    signal.sigwait([signal.SIGTERM])"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        shutil.copytree(run, copy)
        assert "running" in verb("status", "run", f"--root={tmp_path}")[1]
        for word in ("cancel", "stop"):
            assert verb(word, "copy", f"--root={tmp_path}")[0] == 2
        assert process.poll() is None
        assert not (run / "stop.json").exists()
        process.kill()


def test_every_verb_shows_by_the_one_door() -> None:
    """Less those of which every word is the user's own or the machine's."""
    free = {"run.py", "submit.py", "show.py", "agent.py"}
    for path in (ROOT / "launch").rglob("*.py"):
        if path.name not in free:
            assert "click.echo(" not in path.read_text(), path
    assert VERBS
