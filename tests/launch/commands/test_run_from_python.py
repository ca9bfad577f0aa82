"""`phalanx.run`, as who calls it sees it: what it prints, how it fails, and that nothing is left running."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import phalanx
import phalanx.train.main
from phalanx.exit.codes import ExitCode
from phalanx.launch.host.processes import children
from tests.launch.command import Launcher, marked, stand_in
from tests.paced_task import TASK, Pace
from tests.ranks import QUIET, SMALL, Results, Starter, quoted, until

RUN = ("model=mlp", "model.hidden=[8]", "train.epochs=null", *SMALL)
CALLS = """
import phalanx
try:
    phalanx.run(*{words!r})
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which this process calls phalanx.run, which must leave nothing running."""
    mark = uuid.uuid4().hex
    for name, value in {**QUIET, "MARK": mark}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not marked(mark)


def caller(launcher: Launcher, *words: str) -> str:
    """What `Launcher.start` is given to start a script that calls phalanx.run, in place of the command."""
    script = launcher.folder / "caller.py"
    script.write_text(CALLS.format(words=words))
    return shlex.join(["exec", sys.executable, str(script)])


def refused(*words: str, **options: object) -> phalanx.RunFailed:
    with pytest.raises(phalanx.RunFailed) as failed:
        phalanx.run(*words, **options)  # type: ignore[arg-type]
    return failed.value


def test_an_interrupted_run_is_saved_and_the_same_call_finishes_it(
    launcher: Launcher, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a terminal, which tells all that runs in it. This process has imported phalanx.train.main."""
    words = (*RUN, TASK, "train.steps=30", "run.name=r", f"run.root={quoted(str(here / 'runs'))}")
    pace, results = Pace(after=15, gate=str(here / "gate")), Results(here / "runs" / "r")
    started = launcher.start(environ=pace.environ(), within=caller(launcher, *words))
    assert started.process.stdout is not None
    until(lambda: results.reached(10))
    os.killpg(started.process.pid, signal.SIGINT)
    printed = ""
    while "phalanx: SIGINT: the ranks are to save and leave" not in printed:
        printed += started.process.stdout.readline()
    pace.open()
    code, output = started.wait()
    assert code == -signal.SIGINT
    assert not marked(launcher.mark)
    assert not [answer for answer in started.answers if answer.startswith("phalanx: ending it at once")]
    assert output.index("stopped after step") < output.index("interrupted\n") < output.index("KeyboardInterrupt")
    (stop,) = results.events("stop")
    monkeypatch.setenv("PACE", pace.environ()["PACE"])
    run = phalanx.run(*words, ranks=1)
    assert run.events()[-1]["event"] == "finish"
    assert [event["step"] for event in results.events("resume")] == [stop["step"]]
    assert run.summary is not None
    assert run.summary["steps"] == 30


def test_an_interrupt_that_comes_while_the_command_starts_is_answered_as_later_ones(launcher: Launcher) -> None:
    """With no traceback of a Python that is not ready, and in one voice: what a terminal tells all reaches it once."""
    started = launcher.start(body="hear()\nsys.exit(7)", within=caller(launcher))
    until(lambda: [pid for pid in children(started.process.pid) if os.getsid(pid) == pid] != [])  # no terminal's own
    started.process.send_signal(signal.SIGINT)
    code, output = started.wait()
    assert code == -signal.SIGINT
    assert started.answers[-1].startswith("phalanx: SIGINT: the ranks are to save and leave")
    assert output.count("Traceback") == 1


def test_a_second_interrupt_is_at_once(launcher: Launcher) -> None:
    body = "hear()\ntell('once')\ntell('twice', signal.sigwait(signals).name)\nsys.exit(7)"
    started = launcher.start(body=body, within=caller(launcher))
    started.ready(1)
    os.killpg(started.process.pid, signal.SIGINT)
    until((started.here / "once-0").exists)
    os.killpg(started.process.pid, signal.SIGINT)
    code, output = started.wait()
    assert code == -signal.SIGINT
    assert started.told("twice", 0) == "SIGINT"
    assert output.count("KeyboardInterrupt") == 1


def test_a_run_whose_caller_is_killed_saves_and_leaves(launcher: Launcher) -> None:
    """As a notebook's kernel is that is started anew."""
    started = launcher.start(body="tell('heard', hear())\nsys.exit(3)", within=caller(launcher))
    started.ready(1)
    started.process.kill()
    until(lambda: not marked(launcher.mark))
    assert started.told("heard", 0) == "SIGTERM"


def test_a_finished_run_is_returned_again(starter: Starter, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = starter.train(1, *RUN, "train.steps=4", name="r")
    run = phalanx.run(*RUN, "train.steps=4", "run.name=r", f"run.root={here / 'runs'}", ranks=2)
    assert run.folder == results.folder
    assert run.summary == results.summary
    assert f"{results.folder} finished already: 4 steps" in capsys.readouterr().out


def test_a_bad_override_is_the_message_that_the_command_prints(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = refused("train.step=3", ranks=2)
    assert (failed.code, failed.run) == (ExitCode.CONFIG, None)
    assert failed.cause.startswith("train.step is not a key of the config. Did you mean train.steps?")
    assert str(failed) == f"exit code 2: {failed.cause}"
    assert capsys.readouterr().out == f"phalanx: starting 2 ranks\nerror: {failed.cause}\n"


def test_what_is_refused_before_there_are_ranks_is_told_as_well(here: Path) -> None:
    assert refused(source="nowhere").cause.startswith("--from=nowhere does not exist.")
    assert refused(source="nowhere").code == ExitCode.CONFIG
    assert "'--ranks': 0 is not in the range x>=1" in refused(ranks=0).cause
    assert "options by keyword, such as ranks=2" in refused("--cfg=job").cause
    with pytest.raises(TypeError, match=r"such as 'model._target_=mymodule.Net'"):
        phalanx.run(phalanx.Task)  # type: ignore[arg-type]


def test_it_has_the_options_of_the_command(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "short.yaml").write_text("defaults: [config, _self_]\ntrain: {steps: -3}\n")
    assert refused(config_dir=here / "mine", config_name="short").cause.startswith("train.steps=-3")
    assert refused(config_dir="nowhere").cause.startswith("--config-dir=nowhere: there is no folder")


@pytest.mark.parametrize(("body", "code", "cause"), [
    ("sys.exit(6)", 6, "rank 0 ended with code 6"),
    ("cause(7)\nsys.exit(7)", 7, "rank 0 on here: as told"),
    ("os.kill(os.getpid(), signal.SIGKILL)", 1, "rank 0 was killed by SIGKILL"),
    ("os.kill(int(Path(f'/proc/{os.getppid()}/stat').read_text().rpartition(')')[2].split()[1]), signal.SIGKILL)\nwait()",
     1, "phalanx run was killed by SIGKILL"),
])  # fmt: skip
def test_the_code_is_that_of_the_cause(
    here: Path, monkeypatch: pytest.MonkeyPatch, body: str, code: int, cause: str
) -> None:
    """Also of a stop, which is no failure but no finished run either, and where the command itself is killed."""
    monkeypatch.setenv("PYTHON_EXEC", stand_in(here, body))
    failed = refused()
    assert (failed.code, failed.cause, failed.run) == (code, cause, None)


def test_each_line_is_printed_as_it_comes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what stands in for sys.stdout, which has no descriptor in a notebook and need not know all letters."""
    waits = "while not (here / 'seen').exists(): threading.Event().wait(0.001)"
    body = f"print('\\u00e9in', flush=True)\n{waits}\ncause(2)\nsys.exit(2)"
    monkeypatch.setenv("PYTHON_EXEC", stand_in(here, body))

    class Cell(io.StringIO):
        encoding = "ascii"

        def write(self, text: str) -> int:
            if text == "?in\n":
                (here / "seen").touch()
            return super().write(text)

    with contextlib.redirect_stdout(Cell()) as cell:
        assert refused().code == 2
    assert cell.getvalue().splitlines() == ["phalanx: starting 1 rank", "?in"]


def test_a_run_that_cannot_be_shown_is_told_to_save_and_has_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised in the caller meanwhile."""
    monkeypatch.setenv("PYTHON_EXEC", stand_in(here, "print('shown', flush=True)\ntell('heard', hear())\nsys.exit(3)"))

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if text == "shown\n":
                until((here / "ready-0").exists)
                raise BrokenPipeError
            return len(text)

    with contextlib.redirect_stdout(Closed()), pytest.raises(BrokenPipeError):
        phalanx.run()
    assert (here / "heard-0").read_text() == "SIGTERM"


def test_in_another_thread_it_does_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python lets nobody handle signals."""
    monkeypatch.setenv("PYTHON_EXEC", stand_in(here, "cause(4)\nsys.exit(4)"))
    failures: list[phalanx.RunFailed] = []
    thread = threading.Thread(target=lambda: failures.append(refused()))
    thread.start()
    thread.join()
    assert [failed.code for failed in failures] == [ExitCode.GAVE_UP]


def test_ranks_import_what_the_caller_can(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the caller's order: beside it, then what was added to sys.path, then what stands in PYTHONPATH."""
    for folder in ("beside", "added", "typed"):
        (here / folder).mkdir()
        (here / folder / f"{folder}_mine.py").touch()
    monkeypatch.chdir(here / "beside")
    monkeypatch.setenv("PYTHONPATH", str(here / "typed"))
    monkeypatch.setattr(sys, "path", [*sys.path, "", "../added", str(here / "gone")])
    body = "tell('path', json.dumps(sys.path))\nimport beside_mine, added_mine, typed_mine\ncause(4)\nsys.exit(4)"
    monkeypatch.setenv("PYTHON_EXEC", stand_in(here, body))
    assert refused().code == ExitCode.GAVE_UP
    path = json.loads((here / "path-0").read_text())
    ours = [entry for entry in path if entry.startswith(str(here))][1:]  # less the stand-in's own folder
    assert ours == [str(here / folder) for folder in ("beside", "added", "typed")]
    assert not [entry for entry in path[: path.index(ours[-1])] if entry.endswith("site-packages")]


def test_it_imports_no_torch(here: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; import phalanx; phalanx.run('train.step=1')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert "phalanx.train.api.run.RunFailed: exit code 2: train.step is not a key" in done.stderr
