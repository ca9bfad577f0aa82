"""What killed ranks leave on their machine goes with the next start, and nobody else's does."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from phalanx.run_folder import leftovers
from tests.ranks import ROOT

_LEAVES = """
import multiprocessing, os, sys
from phalanx.run_folder import leftovers
leftovers.sweep_and_mark()
context = multiprocessing.get_context("spawn")
kept = context.Semaphore()
from multiprocessing import util
import tempfile
print(kept._semlock.name, util.get_temp_dir(), tempfile.mkdtemp(prefix=leftovers.process_prefix()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "pymp-of-another-program").mkdir()
    (tmp_path / "phalanx-00000000-1-1-elsewhere").mkdir()
    return tmp_path


def test_next_start_takes_away_what_a_killed_one_left_and_nothing_else(others: Path) -> None:
    environ = {**os.environ, "TMPDIR": str(others), "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LEAVES], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    made = []
    for process in processes:
        assert process.stdout is not None
        semaphore, *folders = process.stdout.readline().split()
        made.append([Path("/dev/shm") / f"sem.{semaphore.lstrip('/')}", *map(Path, folders)])
    assert all(path.exists() for paths in made for path in paths)
    left, lives = made
    copy = left[0].with_name(left[0].name + "copy")
    copy.touch()  # as where the tracker of semaphores is killed, too
    processes[0].send_signal(signal.SIGKILL)
    processes[0].communicate()
    before = dict(multiprocessing.process.current_process()._config)  # type: ignore[attr-defined]
    leftovers.sweep_and_mark()
    multiprocessing.process.current_process()._config.update(before)  # type: ignore[attr-defined]
    assert not copy.exists()
    assert not any(folder.exists() for folder in left[1:])
    assert all(path.exists() for path in lives)
    assert (others / "pymp-of-another-program").exists()
    assert (others / "phalanx-00000000-1-1-elsewhere").exists()
    processes[1].communicate()


def test_what_killed_holders_had_begun_to_write_goes_with_the_next_hold(tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    then = time.time() - 3600
    for name in (".look-a", ".now-b", ".look-c", "00000001.json"):
        (tmp_path / "lease" / name).touch()
        if name != ".look-c":
            os.utime(tmp_path / "lease" / name, (then, then))
    folders = ("predictions/val_step_00000005.jsonl", "shown/val_step_00000005/a.png")
    written = [tmp_path / name for name in (*folders, "summary.json", "environment.json", "resolved.yaml")]
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.with_name(f".{path.name}.mep2qp3y").touch()
    leftovers.sweep_run(tmp_path)
    assert [path for path in tmp_path.rglob("*") if ".mep2qp3y" in path.name] == []
    assert all(path.exists() for path in written)
    assert sorted(path.name for path in (tmp_path / "lease").iterdir()) == [".look-c", "00000001.json"]
