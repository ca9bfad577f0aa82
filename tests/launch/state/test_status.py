"""What is told of a run, from its folder alone, agrees with what became of it; and it is stopped through its folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phalanx.launch.commands.status import table
from phalanx.launch.common.text import duration_text
from phalanx.launch.state.run import RunState, run_state
from tests.launch.command import Launcher
from tests.ranks import QUIET, ROOT, SMALL, Starter, World, until
from tests.stoppable_run import RUN, STEPS, until_saved
from tests.train.distributed.fault_injection import TASK, Sabotage


def look(starter: Starter, later_s: float = 0.0) -> RunState:
    return run_state(starter.folder / "runs/r", time.time() + later_s)


def under_way(starter: Starter, *more: str, environ: dict[str, str] | None = None) -> World:
    world = starter.start(2, *RUN, *more, "run.name=r", environ=environ)
    until_saved(starter.results("r"))
    return world


def phalanx(starter: Starter, *argv: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "phalanx.launch.cli", *argv, f"--root={starter.folder / 'runs'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_running_run_is_told_from_one_that_stands_still_and_from_one_that_died(starter: Starter) -> None:
    mark = starter.folder / "mark"
    world = under_way(starter, TASK, environ=Sabotage(0, "step", "stop", 60, str(mark)).environ())
    until(mark.exists)
    found = look(starter)
    assert (found.state, found.steps, found.pid) == ("running", STEPS, world.pids[0])
    assert found.step is not None
    assert 25 <= found.step < 60
    assert found.loss is not None
    assert found.eta_s is not None
    assert found.goodput is not None
    assert 0 < found.goodput < 1
    assert look(starter, later_s=70.0).state == "still"
    world.kill()
    world.wait()
    found = look(starter)
    assert (found.state, found.pid, found.eta_s) == ("died", None, None)


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGTERM, "preempted"), (signal.SIGINT, "stopped"), (signal.SIGKILL, "died")]
)
def test_how_a_run_ended_is_told(starter: Starter, number: signal.Signals, state: str) -> None:
    world = under_way(starter)
    world.kill(with_signal=number)
    world.wait()
    assert look(starter).state == state


def test_failed_and_finished_runs_are_told(starter: Starter) -> None:
    short = ("model=mlp", "train.steps=5", TASK, "run.name=r")
    starter.run(1, *short, environ=Sabotage(0, "step", "raise", 3).environ())
    assert look(starter).state == "failed"
    starter.run(1, *short)
    found = look(starter)
    assert (found.state, found.step, found.steps) == ("finished", 5, 5)
    assert found.goodput == starter.results("r").summary["goodput"]
    assert found.evaluation == starter.results("r").summary["eval"]
    (head, row) = table([found]).splitlines()
    assert f"accuracy {found.evaluation['accuracy']:.4g} loss {found.evaluation['loss']:.4g}" in row
    for columns in (80, 40):
        head, row = table([found], columns).splitlines()
        assert len(row) <= columns
        assert head.split()[:3] == ["RUN", "STATE", "STEP"]


def test_stop_reaches_a_run_through_its_folder(starter: Starter) -> None:
    world = under_way(starter)
    code, output = phalanx(starter, "stop", "r")
    ended = world.wait()
    assert ended.codes == [7, 7]
    step = starter.results("r").events()[-1]["step"]
    assert (code, output.splitlines()[-1]) == (0, f"r is stopped after step {step}")
    code, output = phalanx(starter, "stop", "r")
    assert (code, output.count("error: "), "is not running: it is stopped" in output) == (2, 1, True)


def test_cancel_ends_a_run_at_once_and_the_same_command_continues_it(starter: Starter) -> None:
    """Rank 1 never comes to its next step, so nothing can be saved."""
    mark = starter.folder / "mark"
    words = (TASK, "train.steps=70")
    world = under_way(starter, *words, environ=Sabotage(1, "step", "sleep", 60, str(mark)).environ())
    until(mark.exists)
    code, output = phalanx(starter, "cancel", "r")
    assert (code, output) == (0, f"ended process {world.pids[0]} on {socket.gethostname()}\n")
    assert world.wait().codes == [7, 7]
    code, output = phalanx(starter, "cancel", "r")
    assert (code, output.count("error: "), "neither running nor queued" in output) == (2, 1, True)
    assert starter.run(2, *RUN, *words, "run.name=r").codes == [0, 0]
    assert starter.results("r").events("resume")


def test_cancel_ends_a_run_that_a_script_began_in_the_background(starter: Starter) -> None:
    """Such a one ignores what Ctrl-C sends."""
    root = f"run.root={starter.folder / 'runs'}"
    command = [sys.executable, str(ROOT / "train/main.py"), *SMALL, *RUN, root, "run.name=r"]
    in_background = ["sh", "-c", '"$@" & wait', "sh", *command]
    with subprocess.Popen(in_background, env={**os.environ, **QUIET}, stdout=subprocess.DEVNULL):
        until_saved(starter.results("r"))
        assert phalanx(starter, "cancel", "r")[0] == 0
    assert look(starter).state == "preempted"


def test_run_of_another_machine_is_not_cancelled_from_here(starter: Starter) -> None:
    world = under_way(starter)
    (lease,) = (starter.folder / "runs/r/lease").glob("*.json")
    lease.write_text(json.dumps({**json.loads(lease.read_text()), "machine": "another", "host": "far"}))
    code, output = phalanx(starter, "cancel", "r")
    assert (code, output.count("\n")) == (2, 1)
    assert "cannot be ended from here. Type phalanx stop r, or this command on far" in output
    world.kill()
    world.wait()


def test_table_and_json_list_what_is_below_a_folder(starter: Starter) -> None:
    assert phalanx(starter, "status") == (
        0,
        f"{starter.folder / 'runs'} holds no runs yet. Type phalanx run to train one\n",
    )
    starter.train(1, "model=mlp", "train.steps=2", name="a")
    starter.train(1, "model=mlp", "train.steps=3", name="b")
    (starter.folder / "runs/b").rename(starter.folder / "runs/b and\nmore")
    code, output = phalanx(starter, "status")
    head, first, second = output.splitlines()
    assert code == 0
    assert head.split()[:3] == ["RUN", "STATE", "STEP"]
    assert first.split()[:3] == ["a", "finished", "2/2"]
    assert second.startswith(r"b and\nmore  finished  3/3")
    code, output = phalanx(starter, "status", "--json", "a")
    assert json.loads(output)["state"] == "finished"
    code, output = phalanx(starter, "status", "aa")
    assert (code, output.count("\n")) == (2, 1)
    assert "error: aa is no run's folder" in output


def test_log_is_followed_until_the_run_has_ended(starter: Starter) -> None:
    world = under_way(starter)
    root = f"--root={starter.folder / 'runs'}"
    command = [sys.executable, "-m", "phalanx.launch.cli", "logs", "r", "-f", "--rank=1", root]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as following:
        world.kill(1)
        world.wait()
        output, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    assert output == (starter.folder / "runs/r/logs/rank_1.log").read_text()
    code, output = phalanx(starter, "logs", "r", "--rank", "5")
    assert code == 2
    assert "There are logs of ranks 0, 1" in output


def test_log_is_followed_over_restarts(launcher: Launcher, starter: Starter) -> None:
    """Until the launcher, which may begin a start after another, is gone."""
    body = f"""
sys.path.insert(0, {str(ROOT)!r})
from phalanx.run_folder import lease
here = here.parent / "runs" / "r"
(here / "logs").mkdir(parents=True, exist_ok=True)
(here / "resolved.yaml").touch()
with lease.acquire(here, restart, os.environ), (here / "logs" / "rank_0.log").open("a") as log:
    log.write(f"start {{restart}}\\n")
    log.flush()
    tell(f"began{{restart}}")
    while not (here / f"go{{restart}}").exists(): threading.Event().wait(0.01)
cause(5)
sys.exit(1)
"""
    started = launcher.start("run", "--max-restarts", "1", body=body)
    run = started.here.parent / "runs" / "r"
    until((run / "began0-0").exists)
    command = [sys.executable, "-m", "phalanx.launch.cli", "logs", str(run), "-f"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "start 0\n"
        (run / "go0").touch()
        assert following.stdout.readline() == "start 1\n"
        (run / "go1").touch()
        assert following.stdout.read() == ""
    assert following.returncode == 0
    assert started.wait()[0] == 5


def test_damaged_or_foreign_lines_do_not_hide_a_run(tmp_path: Path) -> None:
    foreign = '{"time": 1.0, "step": 1, "split": "train"}\n{"time": "1", "step": 1, "event": "start"}\n{"time": 1.0}\n'
    for name, text in (
        ("resolved.yaml", ""),
        ("metrics.jsonl", f"{{}}\n[]\n{foreign}{{'"),
        ("events.jsonl", f"\0\n{foreign}"),
        ("summary.json", "[]"),
    ):
        (tmp_path / name).write_text(text)
    assert run_state(tmp_path, time.time()).state == "new"


@pytest.mark.parametrize(
    ("said", "shown"),
    [("steps", "finished"), ("early_stop", "finished by early_stop"), (None, "finished"), ([], "finished")],
)
def test_what_ended_a_run_before_its_last_step_is_told(tmp_path: Path, said: object, shown: str) -> None:
    (tmp_path / "resolved.yaml").write_text("")
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 9, "ended_by": said}))
    found = run_state(tmp_path, time.time())
    assert (found.state, found.ended) == ("finished", shown)
    assert found.as_json()["ended_by"] == (said if isinstance(said, str) else None)
    assert f"{shown}  " in table([found])


def test_habits_of_other_launchers_are_answered(launcher: Launcher) -> None:
    for word, verb in (("list", "status"), ("ps", "status"), ("kill", "cancel"), ("tail", "logs"), ("env", "doctor")):
        code, output = launcher.run(word)
        assert (code, f"Type phalanx {verb}" in output) == (2, True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (5.4, "5 s"), (600, "10 min"), (9000, "2.5 h"), (345600, "4.0 d")]
)
def test_span(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
