"""`phalanx doctor` on real ranks: what it says where all is well, and that a rank that dies or hangs is a line."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.launch.commands import doctor
from tests.launch.command import Launcher
from tests.launch.doctor.findings import findings
from tests.ranks import QUIET, ROOT, Nursery, free_port

WITHOUT_GPU = {"CUDA and driver", "GPUs", "GPU health", "GPU clocks", "GPU links", "matmul", "host to device"}
# What a start of ranks executes in each of them, before it meets the others.
IN_RANKS = """
import os, signal, sys, threading

class Fault:
    def find_spec(self, name, path=None, target=None):
        if name == "phalanx.launch.doctor.all_checks":
            exec({fault!r}, {{**globals(), "rank": int(os.environ["RANK"])}})

sys.meta_path.insert(0, Fault())
"""


def test_where_all_is_well_every_line_passes_or_says_why_it_was_not_checked(
    launcher: Launcher, nursery: Nursery
) -> None:
    code, output = launcher.start_warm(nursery, "doctor", "-n", "3", "--json", "--folder", "my runs $(id)").wait()
    found = findings(output)
    assert code == 0, output
    assert {words["verdict"] for words in found.values()} <= {"pass", "warn", "not checked"}
    assert {name for name, words in found.items() if words["measured"] == "no GPU"} == WITHOUT_GPU
    assert "3 ranks" in found["process group"]["measured"]
    assert re.search(r"\d\.\d\d GB/s at 16 MiB", found["all-reduce"]["measured"])
    assert found["pairs"]["measured"].count("3 pairs") == 1
    assert found["shared folder"]["verdict"] == "pass"
    assert not (launcher.folder / "start-0" / "my runs $(id)").exists(), "a folder that was not there was left behind"


DIES = """
from phalanx.launch.doctor.checks.shared_folder import SharedFolder
def dies(self, ranks):
    os.kill(os.getpid(), signal.SIGKILL)
if rank == 1:
    SharedFolder.measure = dies
"""
NEVER_COMES = "if rank == 1: threading.Event().wait()"
HANGS_IN_A_COLLECTIVE = """
import phalanx.launch.doctor.checks.allreduce
if rank == 0:
    phalanx.launch.doctor.checks.allreduce._time_s = lambda size_bytes, where: threading.Event().wait()
"""
BUSY = r"rank 0 on \S+ was still busy with all-reduce after 12 s"


def test_a_rank_that_dies_or_hangs_is_named_and_what_was_found_before_is_kept(
    launcher: Launcher, nursery: Nursery, tmp_path: Path
) -> None:
    """Three at once, for most of the time they wait."""
    started = []
    for number, fault in enumerate((DIES, NEVER_COMES, HANGS_IN_A_COLLECTIVE)):
        folder = tmp_path / f"fault-{number}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(IN_RANKS.format(fault=fault))
        environ = {"PYTHONPATH": f"{folder}:{ROOT}"}
        started.append(launcher.start_warm(nursery, "doctor", "-n", "2", "--limit", "12", environ=environ))
    (code, died), (other_code, never_came), (last_code, hung) = [one.wait() for one in started]
    assert (code, other_code, last_code) == (1, 1, 1)
    assert re.search(r"FAIL +ranks +rank 1 was killed by SIGKILL, after listening sockets\n", died), died
    assert re.search(r"pass +versions +Python 3", died)
    assert re.search(r"FAIL +ranks +rank 1 did not answer within 12 s \(rendezvous\)", never_came), never_came
    assert re.search(rf"FAIL +ranks +rank 0 on \S+: {BUSY}", hung), hung


def test_ranks_that_report_nothing_any_more_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many checks there are, and however long all of them take."""
    monkeypatch.setattr(doctor, "_START_S", 0.0)
    monkeypatch.setattr(doctor, "_SLACK_S", 0.0)
    with subprocess.Popen(["sleep", "600"]) as agent:
        assert doctor._wait(agent, tmp_path / "report.json", 0.1) is None
        agent.kill()
    assert doctor._wait(agent, tmp_path / "report.json", 0.1) == -signal.SIGKILL


def test_two_machines_print_the_same_report(launcher: Launcher, nursery: Nursery) -> None:
    words = ("doctor", "-n", "1", "--nodes", "2", "--head", f"localhost:{free_port()}", "--json", "--folder", "../runs")
    first, second = launcher.start_warm(nursery, *words), launcher.start_warm(nursery, *words)
    (code, output), (other_code, other_output) = first.wait(), second.wait()
    assert (code, other_code) == (0, 0), output + other_output
    assert findings(output) == findings(other_output)
    assert "2 ranks" in findings(output)["process group"]["measured"]


def test_a_head_that_cannot_be_reached_is_a_line_and_starts_nothing(launcher: Launcher) -> None:
    argv = ("doctor", "--nodes", "2", "--head", "nowhere.invalid:29400", "--limit", "1")
    code, output = launcher.run(*argv, body="tell('started')")
    assert code == 1
    assert output.startswith("FAIL         rendezvous  nowhere.invalid:29400: "), output
    assert output.endswith("\n1 fail\n")


def test_without_our_launcher_rank_0_prints_the_findings_and_a_failure_is_code_1(tmp_path: Path) -> None:
    """As a job on an allocation does, which starts launch/doctor/main.py in the place of train/main.py."""
    few_files = 'ulimit -n 512; exec "$@"'
    entry = [sys.executable, str(ROOT / "launch" / "doctor" / "main.py"), "--folder", "runs"]
    environ = {**os.environ, **QUIET}
    ended = subprocess.run(
        ["sh", "-c", few_files, "sh", *entry], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1, ended.stderr
    assert re.search(r"FAIL +open files +512 may be raised to", ended.stdout), ended.stdout
    assert re.search(r"not checked +all-reduce +one rank", ended.stdout)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["--nodes", "2"],
            "error: --nodes=2 and --head is missing. Name a machine and a free port of it: --head node1:",
        ),
        (["--nodes", "2", "--head", "node1"], "error: --nodes=2 and --head=node1 is no HOST:PORT."),
        (["--head", "a:1"], "error: --head=a:1 is where several machines meet. Type --nodes N with it"),
        (["--folder", "file"], "error: --folder=file is no folder."),
        (["--limits", "3"], "Error: No such option '--limits'. Did you mean '--limit'?"),
    ],
)
def test_bad_input_is_one_message(launcher: Launcher, argv: list[str], says: str) -> None:
    started = launcher.start("doctor", *argv, within='touch file; exec "$@"', body="tell('started')")
    code, output = started.wait()
    assert code == 2
    assert says in output.splitlines()[-1]
    assert not (started.here / "started-0").exists()
