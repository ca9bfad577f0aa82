"""The command answers at once, and what is typed wrong is one message with exit code 2 before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.command import Launcher
from tests.ranks import QUIET, ROOT

LOADS = """
import sys
from phalanx.launch.cli import main
sys.argv = ["phalanx", *{argv!r}]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
slow = {{"torch", "hydra", "omegaconf", "numpy", "rich", "pydantic", "wandb"}} & set(sys.modules)
assert not slow, slow
"""


ANSWERS = pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["run", "--help"],
        ["run", "--dry-run", "-n", "2", "seed=1"],
        ["status"],
        ["stop", "--help"],
        ["doctor", "--help"],
    ],
    ids=" ".join,
)


@ANSWERS
def test_answers_import_nothing_that_takes_long(argv: list[str]) -> None:
    subprocess.run([sys.executable, "-c", LOADS.format(argv=argv)], cwd=ROOT, check=True, capture_output=True)


@ANSWERS
def test_answers_take_less_than_four_tenths_of_a_second(argv: list[str]) -> None:
    """Of a core's time, the best of three: what else runs on this machine does not count."""
    assert min(core_s(argv) for _ in range(3)) < 0.4


def core_s(argv: list[str]) -> float:
    environ = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    silence = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    command = [sys.executable, "-m", "phalanx.launch.cli", *argv]
    _, status, used = os.wait4(os.posix_spawn(sys.executable, command, environ, file_actions=silence), 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


def a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").touch()
    return folder


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["launch"], "Error: phalanx has no command launch. Type phalanx run"),
        (["rum"], "Error: phalanx has no command rum. Did you mean run? Type phalanx --help to see all"),
        (["run", "--max-restart", "1"], "Error: No such option '--max-restart'. Did you mean '--max-restarts'?"),
        (["run", "-n", "0"], "Error: Invalid value for '-n' / '--ranks': 0 is not in the range x>=1."),
        (["run", "--from", "nix"], "error: --from=nix does not exist. There is none beside it"),
        (["run", "--from", "."], "error: --from=. is no run folder: it has no resolved.yaml."),
        (
            ["run", "--from", "../runs/digit"],
            "error: --from=../runs/digit does not exist. Did you mean ../runs/digits? There is ../runs/digits",
        ),
        (["run", "--from", "../runs/digits", "-cn", "x"], "error: --from=../runs/digits and --config-name=x both say"),
    ],
)
def test_bad_input_is_one_message(launcher: Launcher, argv: list[str], says: str) -> None:
    a_run(launcher.folder / "runs" / "digits")
    started = launcher.start(*argv, body="tell('started')")
    code, output = started.wait()
    assert code == 2
    assert says in output.splitlines()[-1]
    assert not (started.here / "started-0").exists()


def test_the_config_of_a_run_is_replayed(launcher: Launcher) -> None:
    run = a_run(launcher.folder / "a run")
    _, output = launcher.run("run", "--dry-run", "--from", str(run), "seed=1")
    assert output.endswith(f"train/main.py '--config-dir={run}' --config-name=resolved seed=1\n")


def test_options_of_hydra_that_say_where_configs_are_are_passed_on(launcher: Launcher) -> None:
    """And every other one after a --."""
    argv = ("run", "--dry-run", "-cd", "my conf", "seed=1", "-cn=mine", "-n", "2", "--", "--cfg", "job", "-n")
    _, output = launcher.run(*argv)
    assert output.endswith("train/main.py '--config-dir=my conf' --config-name=mine seed=1 --cfg job -n\n")
    assert "--ranks=2 " in output


@pytest.mark.parametrize(
    "argv", [["submit", "--dry-run", "cluster.ranks_per_node=1"], ["logs", "run"]], ids=lambda argv: argv[0]
)
def test_a_reader_that_is_gone_is_no_failure(argv: list[str], tmp_path: Path) -> None:
    """As `head` is, when it has what it wants."""
    log = tmp_path / "runs" / "run" / "logs" / "rank_0.log"
    log.parent.mkdir(parents=True)
    log.write_text("line\n")
    (tmp_path / "runs" / "run" / "resolved.yaml").touch()
    read, write = os.pipe()
    os.close(read)
    environ = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "phalanx.launch.cli", *argv]
    done = subprocess.run(command, cwd=tmp_path, env=environ, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
