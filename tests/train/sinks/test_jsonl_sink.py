"""metrics.jsonl and events.jsonl: whole lines, finite numbers, nothing twice and nothing lost over a restart."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.train.sinks.jsonl import JsonLines

ROOT = Path(__file__).resolve().parents[3]


def metrics(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def allowed() -> None:
    """Nobody else writes."""


def record(folder: Path, steps: range, begin: int = 0) -> None:
    """A start that continues from `begin`, logs each of `steps`, evaluates every tenth, and is closed."""
    sink = JsonLines(folder, begin, allowed)
    sink.event({"time": 1.0, "event": "start", "step": begin})
    for step in steps:
        sink.write({"step": step, "split": "train", "time": 1.0, "loss": 0.5})
        if step % 10 == 0:
            sink.write({"step": step, "split": "eval", "time": 1.0, "loss": 0.4})
    sink.close(None)


def test_a_line_is_one_compact_object_with_its_keys_as_given(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path, 0, allowed)
    sink.write({"step": 1, "split": "train", "time": 2.5, "loss": 0.25, "note": "é\n"})
    sink.event({"time": 2.5, "event": "start", "step": 0, "ranks": [0, 1]})
    line = b'{"step":1,"split":"train","time":2.5,"loss":0.25,"note":"\\u00e9\\n"}\n'
    assert (tmp_path / "metrics.jsonl").read_bytes() == line, "before the file is closed"
    assert (tmp_path / "events.jsonl").read_bytes() == b'{"time":2.5,"event":"start","step":0,"ranks":[0,1]}\n'
    sink.close({})


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path, 0, allowed)
    sink.write({"step": 1, "split": "train", "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.1})
    sink.event({"event": "skip", "step": 1, "losses": [1.0, float("-inf")], "by": {"rank": (float("nan"),)}})
    sink.close({})
    assert metrics(tmp_path) == [{"step": 1, "split": "train", "loss": None, "grad_norm": None, "lr": 0.1}]
    assert events(tmp_path)[0]["losses"] == [1.0, None]
    assert events(tmp_path)[0]["by"] == {"rank": [None]}


def test_damaged_lines_are_told_and_kept_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path, range(1, 6))
    whole = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    whole[2] = b"\x00" * 10 + b"\n"
    torn = b"".join(whole) + b'{"step": 6'
    (tmp_path / "metrics.jsonl").write_bytes(torn)
    record(tmp_path, range(6, 8), begin=5)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 4, 5, 6, 7]
    assert "metrics.jsonl was damaged: line 3 held no JSON object" in caplog.text
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == torn
    caplog.clear()
    record(tmp_path, range(8, 9), begin=7)
    assert not caplog.text


def test_a_restart_repeats_no_line_and_misses_none(tmp_path: Path) -> None:
    record(tmp_path, range(31))
    record(tmp_path, range(21, 41), begin=20)
    for split, steps in (("train", list(range(41))), ("eval", [0, 10, 20, 30, 40])):
        assert [line["step"] for line in metrics(tmp_path) if line["split"] == split] == steps


def test_beginning_anew_drops_all_metrics_and_keeps_the_ledger(tmp_path: Path) -> None:
    record(tmp_path, range(3))
    record(tmp_path, range(0))
    assert metrics(tmp_path) == []
    assert len(events(tmp_path)) == 2


@pytest.mark.parametrize("torn", ['{"step":3,"split":"tr', '{"step":3}', "\0\0\0\n", "[3]\n", '{"no":"step"}\n'])
def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path: Path, torn: str) -> None:
    record(tmp_path, range(1, 3))
    before = metrics(tmp_path)
    for name in ("metrics.jsonl", "events.jsonl"):
        with open(tmp_path / name, "a") as file:
            file.write(torn)
    JsonLines(tmp_path, 5, allowed).close(None)
    assert metrics(tmp_path) == before
    assert [event["event"] for event in events(tmp_path) if "event" in event] == ["start"]
    assert (tmp_path / "events.jsonl").read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("step", [5, 10])
def test_each_start_has_new_files_so_that_an_earlier_writer_reaches_them_no_more(tmp_path: Path, step: int) -> None:
    record(tmp_path, range(1, 11))
    (tmp_path / "metrics.jsonl.new").write_text("left by a start that was killed while it cut")
    earlier = JsonLines(tmp_path, 10, allowed)
    later = JsonLines(tmp_path, step, allowed)
    earlier.write({"step": 11, "split": "train"})
    kept = [line["step"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert kept == list(range(1, step + 1))
    assert not (tmp_path / "metrics.jsonl.new").exists()
    earlier.close(None)
    later.close(None)


def test_empty_file_is_a_new_one_at_the_next_start_too(tmp_path: Path) -> None:
    earlier, later = JsonLines(tmp_path, 0, allowed), JsonLines(tmp_path, 0, allowed)
    earlier.write({"step": 1, "split": "train"})
    assert metrics(tmp_path) == []
    later.close(None)
    with pytest.raises(OSError, match="was replaced by another process"):  # it was told that its lines are safe
        earlier.sync()
    earlier.close(None)


def test_start_that_was_replaced_before_it_opened_changes_nothing(tmp_path: Path) -> None:
    record(tmp_path, range(1, 11))

    def refuse() -> None:
        raise RuntimeError("taken over")

    with pytest.raises(RuntimeError, match="taken over"):
        JsonLines(tmp_path, 5, refuse)
    assert [line["step"] for line in metrics(tmp_path) if line["split"] == "train"] == list(range(1, 11))


def test_a_killed_writer_leaves_a_record_that_the_next_start_continues(tmp_path: Path) -> None:
    program = f"""
from itertools import count
from pathlib import Path
from phalanx.train.sinks.jsonl import JsonLines
sink = JsonLines(Path({str(tmp_path)!r}), 0, lambda: None)
for step in count(1):
    sink.write({{"step": step, "split": "train", "time": 1.0, "loss": 0.5}})
    if step == 500:
        print("well under way", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    written = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(written[:-7])  # where a power cut would have left it
    record(tmp_path, range(401, 411), begin=400)
    assert [line["step"] for line in metrics(tmp_path) if line["split"] == "train"] == list(range(1, 411))


def test_lines_that_find_no_room_wait_for_it_and_none_is_torn(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from phalanx.exit.codes import NoRoom
from phalanx.train.sinks.jsonl import JsonLines
sink = JsonLines(Path({str(tmp_path)!r}), 0, lambda: None)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for step in (1, 2):
    sink.write({{"step": step, "text": "x" * 150}})
try:
    sink.sync()
except NoRoom as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.close(None)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "cannot be written: File too large" in ended.stdout
    assert f"{tmp_path} has " in ended.stdout
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]


def test_sync_forces_both_files_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = JsonLines(tmp_path, 0, allowed)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    sink.sync()
    assert synced == [os.stat(tmp_path / name).st_ino for name in ("metrics.jsonl", "events.jsonl")]
    sink.close({})
