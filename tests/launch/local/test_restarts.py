"""`phalanx run --max-restarts` starts again what another attempt may get past, and nothing else."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from phalanx.exit.codes import ExitCode
from phalanx.exit.rank_env import RankEnv
from phalanx.launch.host.processes import children
from phalanx.launch.local.exit_cause import ExitCause
from phalanx.system.listening_sockets import listening_addresses, non_loopback_addresses
from tests.launch.command import Launcher, inside
from tests.paced_task import TASK, Pace
from tests.ranks import SMALL, Nursery, Results, Starter, until


def starts(launcher: Launcher) -> list[str]:
    return sorted(path.name for path in (launcher.folder / "start-0").glob("restart*"))


@pytest.mark.parametrize("code", ExitCode)
def test_crashes_and_hangs_are_worth_a_restart(code: ExitCode) -> None:
    """The others were meant, or would end the same."""
    assert ExitCause(code, "", said=True).worth_a_restart == (code in (ExitCode.BUG, ExitCode.HUNG))


def test_restarts_are_used_up_each_for_a_cause_of_its_own(launcher: Launcher) -> None:
    body = "tell(f'restart{restart}')\nif restart == 0: cause(5)\nsys.exit(5 if restart < 2 else 1)"
    code, output = launcher.run("run", "--max-restarts", "2", body=body)
    assert code == 1, "that of the last cause"
    assert starts(launcher) == ["restart0-0", "restart1-0", "restart2-0"]
    assert output.splitlines() == [
        "phalanx: starting again (1 of 2), because rank 0 on here: as told",
        "phalanx: starting again (2 of 2), because rank 0 ended with code 5",
    ]


def test_a_wanted_stop_is_not_started_again(launcher: Launcher) -> None:
    body = "tell(f'restart{restart}')\nsys.exit(7)"
    assert launcher.run("run", "--max-restarts", "2", body=body) == (7, "")
    assert starts(launcher) == ["restart0-0"]


def test_what_was_told_to_stop_and_failed_at_that_is_not_started_again(launcher: Launcher) -> None:
    started = launcher.start("run", "--max-restarts", "2", body="tell(f'restart{restart}')\nhear()\nsys.exit(1)")
    started.ready(1)
    started.process.terminate()
    assert started.wait() == (1, "")
    assert starts(launcher) == ["restart0-0"]


def test_a_killed_rank_costs_nothing_but_time(launcher: Launcher, nursery: Nursery, starter: Starter) -> None:
    """The restart continues from the newest checkpoint, to the bits of a run that nobody disturbed or launched."""
    words = ("model=mlp", TASK, "train.steps=30", "checkpoint.every=10")
    pace = Pace(after=15, gate=str(launcher.folder / "gate"))
    environ = {**pace.environ(), "GLOO_SOCKET_IFNAME": _network()}  # as is set for a cluster
    options = ("-n", "2", "--max-restarts", "1")
    started = launcher.start_warm(nursery, "run", *options, *SMALL, *words, "run.name=r", environ=environ)
    until((started.here / "runs" / "r" / "checkpoints" / "step_00000010" / "manifest.json").exists, 120.0)
    assert listening_addresses(inside(started.here))
    assert non_loopback_addresses(inside(started.here)) == set()
    first = started.agent
    ranks = children(first)
    assert [_words(rank) for rank in ranks] == [_words(first)] * 2, (
        "forked, and no Python of their own that imports torch"
    )
    os.kill(ranks[1], signal.SIGKILL)
    pace.open()
    until(lambda: (started.here / "runs" / "r" / "events.jsonl").read_text().count('"resume"') > 0, 120.0)
    assert non_loopback_addresses(inside(started.here)) == set(), "the second start"
    code, output = started.wait()
    assert code == 0, output
    (again,) = [line for line in output.splitlines() if line.startswith("phalanx: starting again (1 of 1)")]
    # Who sees it first says so: the launcher, which knows the signal, or rank 0, which knows that its peer is gone.
    assert re.search(r"because rank (1 was killed by SIGKILL|0 on .*: rank 1 on .* is gone: it was killed)", again)
    assert output.count("ranks 2") == 2
    calm = starter.train(2, *words, name="calm", environ=pace.environ())
    storm = Results(started.here / "runs" / "r")
    assert storm.summary["steps"] == 30
    assert calm.sha256 == storm.sha256
    assert calm.timeless() == storm.timeless()


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _network() -> str:
    """The name of a network of this machine that others see, where there is one."""
    return next((name for _, name in socket.if_nameindex() if not name.startswith("lo")), "lo")


def test_ranks_know_how_often_they_were_started_again() -> None:
    """Both counts of restarts make a start one of its own: the launcher's, and that of the cluster's job."""
    assert RankEnv.from_environment({"PHALANX_RESTART_COUNT": "2", "SLURM_RESTART_COUNT": "1"}).attempt == 3
    any_cluster = {"PHALANX_JOB": "pod-1", "PHALANX_JOB_RESTARTS": "4", "SLURM_RESTART_COUNT": "1"}
    assert RankEnv.from_environment({"PHALANX_RESTART_COUNT": "2", **any_cluster}).attempt == 6


def test_a_config_that_is_no_yaml_is_one_message_and_one_start(launcher: Launcher) -> None:
    (launcher.folder / "mine.yaml").write_text("train: {steps: 3\n")
    words = (f"--config-dir={launcher.folder}", "--config-name=mine")
    code, output = launcher.run("run", "-n", "2", "--max-restarts", "3", *words)
    assert code == 2
    assert output.startswith("error: The config does not compose: ")
    assert "mine.yaml, line 2, column 1 is no YAML" in output
    assert output.count("\n") == 1
