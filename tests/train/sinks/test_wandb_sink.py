"""W&B gets the run where it can, and nothing about W&B makes a training wait, speak, leak, hang or fail."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from phalanx.config.wandb_mode import Mode
from phalanx.train.sinks.trackers.best_values import BestValues
from phalanx.train.sinks.trackers.process import ALONE_S, POLL_S
from phalanx.train.sinks.trackers.weights_and_biases import WeightsAndBiases

if TYPE_CHECKING:
    from tests.train.sinks.conftest import WandbServer

ROOT = Path(__file__).resolve().parents[3]
NEVER_S = 20.0  # no loaded machine takes as long for what waits for nobody, and W&B would wait much longer
SERVICE_LOOK_S = 2.0  # how often W&B's own processes see whether the one that started them lives

# A training as a process: argument 1 is the run folder, 2 the mode, 3 what happens after two lines.
TRAINING = """
import logging, os, signal, sys
from pathlib import Path
from phalanx.train.sinks.trackers.best_values import BestValues
from phalanx.train.sinks.trackers.weights_and_biases import WeightsAndBiases
sink = WeightsAndBiases(Path(sys.argv[1]), mode=sys.argv[2], project="p", entity=None, group=None, tags=[], name="n",
                        config={}, files={}, best=BestValues({}), finish_timeout_s=10)
for step in (1, 2):
    sink.write({"step": step, "split": "train", "time": 1.0, "loss": 0.5})
print("logged", flush=True)
if sys.argv[3] == "close":
    sink.close({})
elif sys.argv[3] == "wait" or os.fork() == 0:  # as a data worker, which has every pipe of its parent
    sys.stdin.readline()
elif sys.argv[3] == "fork":
    signal.pause()
"""


def sink(folder: Path, mode: Mode, finish_timeout_s: float = 10.0, **given: Any) -> WeightsAndBiases:
    options = {"project": "p", "entity": None, "group": None, "tags": [], "name": "n", "config": {}, **given}
    best, files = BestValues({}), {"environment.json": '{"python": "3.11"}', "diff.patch": "+é\n"}
    return WeightsAndBiases(folder, mode=mode, files=files, best=best, finish_timeout_s=finish_timeout_s, **options)


def train(sink: WeightsAndBiases, steps: range) -> None:
    for step in steps:
        sink.write({"step": step, "split": "train", "time": 1.0, "loss": 1 / step, "lr": 0.1})


def started_here(mark: str) -> list[int]:
    """The other processes, and theirs, that inherited this test's environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            inherited = f"PHALANX_TEST={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if inherited and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for_end(processes: list[int], timeout_s: float) -> None:
    """Return when all of them have ended. Zombies count as ended."""
    deadline_s = time.monotonic() + timeout_s
    for process in processes:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([handle], [], [], max(0.0, deadline_s - time.monotonic()))
        os.close(handle)
        assert ended, f"process {process} lives: {Path(f'/proc/{process}/cmdline').read_text()}"


def test_a_run_is_charted_by_its_own_step_and_continued_by_a_restart(wandb_server: WandbServer, tmp_path: Path) -> None:
    run = sink(tmp_path, "online", name="digits", group="sweep", tags=["a", "b"], config={"optim": {"lr": 0.1}})
    train(run, range(1, 3))
    run.event({"time": 1.0, "event": "checkpoint", "step": 2})
    run.close(None)
    again = sink(tmp_path, "online")
    again.write({"step": 2, "split": "eval", "time": 1.0, "loss": 0.4, "accuracy": 0.9})
    again.close({"weights_sha256": "abc", "steps": 2, "wall_s": 1.5, "folder": "/r", "eval": {"accuracy": 0.9}})

    assert wandb_server.history() == [
        {"step": 1, "train/loss": 1, "lr": 0.1},
        {"step": 2, "train/loss": 0.5, "lr": 0.1},
        {"step": 2, "eval/loss": 0.4, "eval/accuracy": 0.9},
    ]
    first, second, *_ = upserts = wandb_server.all("UpsertBucket")
    assert (first["project"], first["displayName"], first["groupName"]) == ("p", "digits", "sweep")
    assert first["tags"] == ["a", "b"]
    assert json.loads(first["config"])["optim"] == {"value": {"lr": 0.1}}
    axis, glob = json.loads(second["config"])["_wandb"]["value"]["m"]
    assert axis["1"] == "step"
    assert (glob["2"], glob["5"]) == ("*", 1), "every chart's axis is the first metric that was defined"
    assert {upsert["name"] for upsert in upserts} == {(tmp_path / "wandb" / "run_id").read_text()}
    ends = [body for body in wandb_server.all("file_stream") if body.get("complete")]
    assert [end["exitcode"] for end in ends] == [1, 0]
    summary = json.loads(ends[-1]["files"]["wandb-summary.json"]["content"][-1])
    assert (summary["weights_sha256"], summary["wall_s"], summary["eval/accuracy"]) == ("abc", 1.5, 0.9)
    assert (summary["best/eval/accuracy"], summary["best/eval/loss"]) == (0.9, 0.4)
    assert wandb_server.files["environment.json"] == b'{"python": "3.11"}'
    assert wandb_server.files["diff.patch"].decode() == "+é\n"


def test_an_offline_run_asks_nobody_says_nothing_and_tells_no_secret(wandb_env: str, tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    key = "0123456789abcdef" * 3
    environ = os.environ | {"WANDB_API_KEY": key, "DATABASE_PASSWORD": "pass-in-environment"}
    environ["WANDB_SERVICE"] = "3-1-unix-/none"  # of a process around this one, which has ended since
    command = [sys.executable, "-c", TRAINING, str(folder), "offline", "close", "db.password=pass-in-argument"]
    for _ in range(2):
        ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "logged\n", "")
    drawn = (folder / "wandb" / "run_id").read_text()
    assert [run.name.split("-")[-1] for run in folder.glob("wandb/offline-run-*")] == [drawn, drawn]
    assert started_here(wandb_env) == []
    assert not (tmp_path / "home").exists(), "all files go to the run folder"
    written = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert b"train/loss" in written
    for secret in (key, "pass-in-environment", "pass-in-argument", sys.executable):
        assert secret.encode() not in written


def test_a_run_shorter_than_the_start_of_w_and_b_still_finishes_there(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.train.sinks.trackers.process_sink.PIPE_BYTES", 1 << 16)
    run = sink(tmp_path, "online")
    train(run, range(1, 3_000))  # more than fits
    run.close({"weights_sha256": "ab" * 32})
    steps = [row["step"] for row in wandb_server.history()]
    assert steps == sorted(set(steps))
    assert 500 < len(steps) < 2_999
    assert wandb_server.all("file_stream")[-1]["exitcode"] == 0
    assert [record.message for record in caplog.records] == [
        "Weights & Biases is too slow for this run: some lines are missing there"
    ]


def test_lines_of_any_length_arrive(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a task with a metric a class: a pipe takes no more than 4,096 bytes in one piece."""
    run = sink(tmp_path, "online")
    line = {f"accuracy/{label:04d}": label / 7 for label in range(500)}
    for step in (1, 2, 3):
        run.write({"step": step, "split": "eval", "time": 1.0, **line})
    run.close({"weights_sha256": "ab" * 32})
    rows = wandb_server.history()
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["eval/accuracy/0499"] == 499 / 7 and len(row) > 500 for row in rows)
    assert caplog.records == []


def test_a_server_that_never_answers_and_a_service_that_hangs_delay_nothing(
    wandb_wall: socket.socket, wandb_env: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    began_s = time.perf_counter()
    run = sink(tmp_path, "online", finish_timeout_s=1.0)
    train(run, range(1, 2))
    wrote_s = time.perf_counter()
    wandb_wall.accept()[0].close()  # by now W&B is trying
    train(run, range(1, 50_001))
    assert wrote_s - began_s < NEVER_S  # 0.001 s on an idle machine
    assert len(caplog.records) == 1, caplog.text
    assert "some lines are missing" in caplog.text
    assert run._process is not None
    (service,) = children(run._process.pid)
    os.kill(service, signal.SIGSTOP)
    closing_s = time.perf_counter()
    try:
        run.close({})
    finally:
        os.kill(service, signal.SIGCONT)
    closed_s = time.perf_counter() - closing_s
    assert closed_s < NEVER_S  # 1.01 s on an idle machine, and for ever if it waited for the service
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "not all was sent in 1 s" in caplog.text
    wait_for_end(started_here(wandb_env), 2 * SERVICE_LOOK_S + 2.0)


def test_a_server_that_takes_too_long_for_w_and_b_is_one_warning(
    wandb_wall: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "0.5")
    run = sink(tmp_path, "online")
    assert run._process is not None
    wandb_wall.accept()[0].close()
    wait_for_end([run._process.pid], 5.0)  # its exit hook alone would take 12 s
    train(run, range(1, 4))
    run.close({})
    assert [record.levelno for record in caplog.records] == [logging.WARNING], caplog.text
    assert "CommError" in caplog.text


@pytest.mark.parametrize(("key", "reason"), [("short", "API key must"), ("", "No API key")])
def test_a_key_that_is_bad_or_missing_is_one_warning_and_no_question(
    wandb_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, reason: str
) -> None:
    """On a terminal, where W&B would like to ask."""
    monkeypatch.setenv("WANDB_API_KEY", key)
    screen, terminal = pty.openpty()
    command = [sys.executable, "-c", TRAINING, str(tmp_path), "online", "close"]
    ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **ends) as run:  # type: ignore[call-overload]
        os.close(terminal)
        assert run.wait(timeout=20) == 0
    shown = os.read(screen, 1 << 16).decode().splitlines()
    os.close(screen)
    assert [line[:40] for line in shown] == ["logged", "Weights & Biases gets no more of this run"[:40]]
    assert reason in shown[1]


def test_a_service_that_dies_is_one_warning(
    wandb_server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = sink(tmp_path, "online")
    wandb_server.wait_for("UpsertBucket")
    assert run._process is not None
    (service,) = children(run._process.pid)
    os.kill(service, signal.SIGKILL)
    wait_for_end([service], 5.0)
    train(run, range(1, 4))
    run.close({})
    assert [record.levelno for record in caplog.records] == [logging.WARNING], caplog.text
    assert "gets no more of this run, which goes on: " in caplog.text


def test_a_process_that_dies_is_one_warning(wandb_env: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = sink(tmp_path, "offline")
    assert run._process is not None
    run._process.kill()
    wait_for_end([run._process.pid], 5.0)
    train(run, range(1, 4))
    run.close({})
    assert [record.levelno for record in caplog.records] == [logging.WARNING], caplog.text
    assert "which goes on: [Errno 32] Broken pipe" in caplog.text


def test_w_and_b_missing_is_one_warning(
    wandb_env: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text("raise ImportError('no wandb here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    run = sink(tmp_path, "offline")
    run.close({})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "ImportError: no wandb here" in caplog.text


def test_a_killed_training_leaves_no_process_behind(wandb_server: WandbServer, wandb_env: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path), "online", "fork"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        wandb_server.wait_for("UpsertBucket")
        _, data_worker = children(run.pid)
        family = set(started_here(wandb_env)) - {data_worker}
        assert len(family) >= 3, "the training, its W&B process, and W&B's service"
        run.kill()
        wait_for_end(list(family), POLL_S + ALONE_S + SERVICE_LOOK_S)
    assert wandb_server.history() == [{"step": step, "train/loss": 0.5} for step in (1, 2)]
    assert wandb_server.all("file_stream")[-1]["exitcode"] == 1


def test_a_training_that_ends_while_w_and_b_hangs_waits_for_nobody_and_leaves_nobody(
    wandb_wall: socket.socket, wandb_env: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", TRAINING, str(tmp_path), "online"]
    with subprocess.Popen([*command, "wait"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed:
        wandb_wall.accept()[0].close()
        began_s = time.monotonic()
        subprocess.run([*command, "leave"], cwd=ROOT, check=True, capture_output=True, timeout=60)
        assert time.monotonic() - began_s < NEVER_S, "0.07 s on an idle machine; W&B alone would wait for 90 s"
        family = started_here(wandb_env)
        killed.kill()
    wait_for_end(family, POLL_S + ALONE_S + 2 * SERVICE_LOOK_S)


def test_signals_for_a_whole_job_leave_w_and_b_alone_and_its_stop_button_reaches_the_training(
    wandb_server: WandbServer, tmp_path: Path
) -> None:
    """The button interrupts the process that logs."""
    command = [sys.executable, "-c", TRAINING, str(tmp_path), "online", "wait"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as run:  # type: ignore[call-overload]
        wandb_server.wait_for("UpsertBucket")
        (logger,) = children(run.pid)
        assert os.getsid(logger) == logger, "or Ctrl-C would reach the training twice"
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT):
            os.kill(logger, number)
        assert run.wait(timeout=10) == -signal.SIGINT
    wandb_server.wait_for("file_stream", lambda body: body.get("complete", False))
    assert [row["step"] for row in wandb_server.history()] == [1, 2]


def test_switched_off_it_starts_nothing(wandb_env: str, tmp_path: Path) -> None:
    run = sink(tmp_path, "disabled")
    train(run, range(1, 3))
    run.close({})
    assert started_here(wandb_env) == []
    assert list(tmp_path.iterdir()) == []
