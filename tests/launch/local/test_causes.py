"""The exit code of `phalanx run` is that of the cause, which torchrun alone folds into 1."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.exit.codes import ExitCode
from phalanx.launch.local.exit_cause import ExitCause, read
from tests.launch.command import Launcher
from tests.ranks import ROOT, until

_TOLD = "rank 0 was told to leave before training began; the same command begins again"
TERM, KILL = -signal.SIGTERM, -signal.SIGKILL


def told(folder: Path, cause: object = None, ranks: object = None) -> ExitCause:
    """What is read after a start whose agent ended with 1, as it does whatever its ranks ended with."""
    for name, found in (("cause.json", cause), ("ranks.json", ranks)):
        if found is not None:
            (folder / name).write_text(found if isinstance(found, str) else json.dumps(found))
    return read(folder, 1)


@pytest.mark.parametrize("code", set(ExitCode) - {ExitCode.FINISHED})
def test_what_the_deciding_rank_wrote_outweighs_how_ranks_ended(tmp_path: Path, code: ExitCode) -> None:
    found = told(tmp_path, {"code": code, "rank": 1, "host": "a", "message": "so\nit is"}, [[0, KILL, 5]])
    teller = "" if code == ExitCode.CONFIG else "rank 1 on a: "  # a bad command line is every rank's
    assert found == ExitCause(code, f"{teller}so it is", said=True)


@pytest.mark.parametrize(
    "cause", ["", '{"code": 3', "[3]", '{"code": 0}', '{"code": 256}', '{"code": "3"}', '{"code": true}']
)
def test_what_is_no_cause_leaves_it_to_the_ranks(tmp_path: Path, cause: str) -> None:
    assert told(tmp_path, cause, [[0, 6, 5]]).code == ExitCode.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("ranks", "code", "message"),
    [
        ([[1, 6, 5], [0, TERM, 5]], 6, "rank 1 ended with code 6"),
        ([[0, TERM, 5], [1, 6, 5]], 6, "rank 1 ended with code 6"),
        ([[0, 1, 5], [1, KILL, 5]], 1, "rank 1 was killed by SIGKILL"),  # rank 0 lost its peer
        ([[0, 2, 5], [1, KILL, 35]], 2, "rank 0 ended with code 2"),  # rank 1 did not leave when told
        ([[0, TERM, 5], [1, 3, 5]], 3, _TOLD),
        ([[1, TERM, 5], [0, 3, 5]], 3, _TOLD.replace("0", "1")),
        ([[0, 3, 5], [1, KILL, 5]], 1, "rank 1 was killed by SIGKILL"),
        ([[0, 3, 5], [1, 1, 5]], 1, "rank 1 ended with code 1"),
        ([[0, 70, 5]], 1, "rank 0 ended with code 70"),
        ([[0, -40, 5]], 1, "rank 0 was killed by signal 40"),
        (None, 1, "the agent of the ranks ended with code 1"),
    ],
)
def test_without_a_word_the_cause_is_the_first_rank_to_fail(
    tmp_path: Path, ranks: object, code: int, message: str
) -> None:
    found = told(tmp_path, ranks=ranks)
    assert (found.code, found.message) == (code, message)


def test_a_start_that_finished_has_finished(tmp_path: Path) -> None:
    assert read(tmp_path, 0).code == ExitCode.FINISHED


def test_exit_code_is_that_of_the_first_rank_to_fail(launcher: Launcher) -> None:
    assert launcher.run("run", "-n", "2", body="if rank == 0: wait()\nsys.exit(6)") == (6, "")


def test_exit_code_is_the_one_in_the_cause_file(launcher: Launcher) -> None:
    body = "if rank == 0: wait()\ncause(5)\nsys.exit(1)"
    assert launcher.run("run", "-n", "2", body=body) == (5, "")


def test_a_killed_rank_is_named_with_its_signal(launcher: Launcher) -> None:
    started = launcher.start("run", "-n", "2", body="tell('pid', str(os.getpid()))\nwait()")
    started.ready(2)
    os.kill(int(started.told("pid", 1)), signal.SIGKILL)
    assert started.wait() == (1, "phalanx: rank 1 was killed by SIGKILL\n")


def test_traces_of_collectives_outlive_the_start(launcher: Launcher) -> None:
    body = "Path(os.environ['TORCH_FR_DUMP_TEMP_FILE'] + str(rank)).write_text('trace')\ncause(5)\nsys.exit(5)"
    code, output = launcher.run("run", body=body)
    (kept,) = (launcher.folder / "tmp").glob("phalanx-traces-*")
    assert (code, output) == (5, f"phalanx: NCCL wrote down what each rank was doing. Type torchfrtrace {kept}\n")
    assert [trace.name for trace in kept.iterdir()] == ["nccl_trace_rank_0"]
    shutil.rmtree(kept)


def test_a_bad_config_is_one_message_and_exit_code_2(launcher: Launcher) -> None:
    code, output = launcher.run("run", "-n", "2", "train.step=3")
    assert code == 2
    assert output.count("\n") == 1
    assert "Did you mean train.steps?" in output


def test_a_rank_that_died_stays_the_cause_though_the_others_are_told_to_leave_meanwhile(tmp_path: Path) -> None:
    """As of a job that runs out of time while it waits for those that have not failed."""
    script, cause = tmp_path / "script.py", tmp_path / "cause.json"
    script.write_text(_ONE_DIES)
    start = [sys.executable, str(ROOT / "phalanx"), "-m", "launch.local.agent"]
    agent = [*start, "--ranks=2", "--grace=60", str(script), str(tmp_path)]
    environ = {**os.environ, "PYTHON_EXEC": sys.executable, "PHALANX_CAUSE_FILE": str(cause)}
    with subprocess.Popen(agent, env=environ, stderr=subprocess.PIPE) as process:
        until((tmp_path / "told").exists)
        process.send_signal(signal.SIGUSR2)
        process.communicate()
    assert process.returncode == 1
    assert json.loads(cause.read_text())["message"] == "rank 0 was killed by SIGKILL"


_ONE_DIES = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
if os.environ["RANK"] == "0":
    os.kill(os.getpid(), signal.SIGKILL)
assert signal.sigwait({signal.SIGTERM, signal.SIGUSR2}) == signal.SIGTERM
open(sys.argv[1] + "/told", "w").close()
signal.sigwait({signal.SIGUSR2})
"""
