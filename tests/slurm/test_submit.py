"""What is submitted, what is not, and how often."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.paced_task import TASK, Pace
from tests.ranks import ROOT, SMALL, quoted
from tests.slurm.queued_runs import ONE, TINY
from tests.slurm.slurm_lab import Desk, first_on_path, program


def test_dry_run_prints_exactly_what_is_submitted(desk: Desk) -> None:
    setup = "cluster.setup=['export A=1','B=\"2 3\"']"
    words = (*TINY, *ONE, setup, "--array=0-1%1", "seed=%a")
    record = f'printf "%s\\0" "$@" >{desk.folder}/argv; env -0 >{desk.folder}/environ; echo 1'
    program(desk.folder / "bin", "sbatch", record)
    environ = {**first_on_path(desk.folder / "bin"), "SLURM_JOB_ID": "7", "RANK": "3"}
    printed = desk.type("--dry-run", *words, environ=environ)
    assert not (desk.folder / "runs").exists(), "a dry run writes nothing"
    done = desk.type(*words, environ=environ)
    assert (printed.returncode, done.returncode) == (0, 0), printed.stderr + done.stderr
    said = shlex.split(printed.stdout.replace(" \\\n", ""))  # as a shell joins lines
    assert len(printed.stdout.splitlines()) > 20, "it is read, too"
    start = said.index("sbatch")
    assert (desk.folder / "argv").read_text().split("\0")[:-1] == said[start + 1 :]
    given = dict(line.split("=", 1) for line in (desk.folder / "environ").read_text().split("\0")[:-1])
    settings = [word for word in said[1:start] if "=" in word]
    assert settings
    for setting in settings:
        name, value = setting.split("=", 1)
        assert given[name] == value
    unset = {said[at + 1] for at in range(start) if said[at] == "-u"}
    assert unset >= {"SLURM_JOB_ID", "RANK"}
    assert not unset & given.keys()


def test_run_that_is_queued_or_running_is_not_submitted_twice(desk: Desk) -> None:
    pace = Pace(after=2, gate=str(desk.folder / "gate"))
    job = desk.submit(TASK, *TINY, *ONE, environ=pace.environ())
    again = desk.type(f"run.root={desk.runs}", TASK, *TINY, *ONE)
    assert again.returncode == 2
    assert f"is job {job.job} already" in again.stderr
    assert len(list((desk.runs / ".submitted").glob("*/"))) == 1
    other = desk.submit(TASK, *TINY, *ONE, "seed=1", "cluster.sbatch=['--hold']", environ=pace.environ())
    assert other.job != job.job
    desk.cluster.ask("scancel", other.job)
    pace.open()
    job.finish()
    after = desk.type(f"run.root={desk.runs}", TASK, *TINY, *ONE, environ=pace.environ())
    assert after.returncode == 0, after.stderr


def test_folders_of_submissions_that_are_over_are_removed_but_for_the_newest(desk: Desk) -> None:
    hold = desk.cluster.ask("sbatch", "--parsable", "--hold", "--wrap=true")
    desk.submit(*TINY, *ONE, "run.name=waits", f"--after={hold}")
    program(desk.folder / "bin", "sbatch", "echo 1")
    nothing = first_on_path(desk.folder / "bin")
    for number in range(9):
        name = "unfinished" if number == 1 else f"r{number}"
        desk.submit(*TINY, *ONE, f"run.name={name}", environ=nothing)
        if name != "unfinished":
            (desk.runs / name).mkdir()
            (desk.runs / name / "summary.json").touch()
    (desk.runs / "waits").mkdir()
    (desk.runs / "waits" / "summary.json").touch()
    desk.submit(*TINY, *ONE, "run.name=last", environ=nothing)
    left = {path.name for path in (desk.runs / ".submitted").glob("*/")}
    assert left == {"waits-1", "unfinished-1", "last-1", *(f"r{number}-1" for number in range(4, 9))}
    desk.cluster.ask("scontrol", "release", hold)


def test_job_runs_the_code_as_it_was_when_it_was_submitted(desk: Desk) -> None:
    """The user's own package as well, from a checkout of theirs."""
    own = desk.folder / "own"
    shutil.copytree(ROOT / "docs" / "own_package", own)
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message=first")):
        subprocess.run(["git", *words], cwd=own, check=True, capture_output=True)
    own_desk = Desk(desk.cluster, own, {"PYTHONPATH": f"{ROOT}:."})
    hold = desk.cluster.ask("sbatch", "--parsable", "--hold", "--wrap=true")
    job = own_desk.submit("experiment=curves", "train.epochs=1", *ONE, "--config-dir=conf", f"--after={hold}")
    (own / "mypkg" / "curves.py").write_text("raise SystemExit('this is not what was submitted')\n")
    (own / "conf" / "experiment" / "curves.yaml").write_text("no: config\n")
    desk.cluster.ask("scontrol", "release", hold)
    assert job.finish().summary["steps"] > 0, job.log
    code = subprocess.run(["git", "status", "--porcelain"], cwd=job.folder / "code", capture_output=True, text=True)
    here = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    assert code.stdout == here.stdout, "git tells the same of the copy"


def test_job_from_a_detached_head_trains(desk: Desk) -> None:
    """As from a tag, a worktree, a checkout of CI or a submodule, for each of which git names no branch."""
    clone = desk.folder / "clone"
    for words in (("clone", "--quiet", "--shared", str(ROOT), str(clone)), ("-C", str(clone), "checkout", "--detach")):
        subprocess.run(["git", *words], check=True, capture_output=True)
    job = desk.submit(*TINY, *ONE, environ={"PYTHONPATH": str(clone)})
    git = json.loads((job.finish().folder / "environment.json").read_text())["git"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True).stdout
    assert git == {"commit": commit.strip(), "branch": None, "dirty": False, "diff": ""}


def test_any_name_and_folder_is_carried_exactly(desk: Desk) -> None:
    folder = desk.folder / "a b\n'$(touch pwned)' 100%"
    folder.mkdir()
    name = 'it\'s a "run" = $(touch pwned) $$ $local_rank %j'
    words = ("run.root=../runs", "wandb.mode=disabled", *TINY, *ONE, f"run.name={quoted(name)}")
    job = Desk(desk.cluster, folder).type(*words)
    assert job.returncode == 0, job.stderr
    number = job.stdout.split()[1]
    desk.cluster.until(lambda: desk.cluster.state(number) == "COMPLETED")
    assert (desk.runs / name / "summary.json").exists()
    assert not list(desk.folder.rglob("pwned"))


def test_further_options_of_sbatch_are_the_jobs(desk: Desk) -> None:
    job = desk.submit(*TINY, "cluster.gpus_per_node=1", "cluster.sbatch=['exclude=n[1-2]',exclusive,'gres=gpu:1']")
    facts = desk.cluster.facts(job.job)
    assert (facts["ExcNodeList"], facts["OverSubscribe"], facts["TresPerNode"]) == ("n[1-2]", "NO", "gres:gpu:1")
    desk.cluster.ask("scancel", job.job)


def test_slurm_says_when_a_job_would_start(desk: Desk) -> None:
    done = desk.type("--test-only", *TINY, *ONE)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stdout
    assert not (desk.folder / "runs").exists()


def test_waiting_returns_the_exit_code_of_the_job(desk: Desk) -> None:
    done = desk.type("--wait", *TINY, *ONE, "cluster.setup=['false']")
    assert done.returncode == 2, done.stdout + done.stderr


BAD = [
    ((), "Neither cluster.gpus_per_node nor cluster.ranks_per_node is set"),
    (("cluster.partitoin=x",), "Did you mean cluster.partition?"),
    (("cluster.gpus_per_node=3",), "cluster.gpus_per_node=3 is more than any machine of the cluster has: 2. Type"),
    (("cluster.gpus_per_node=2", "cluster.ranks_per_node=3"), "Type cluster.ranks_per_node=2"),
    ((*ONE, "cluster.time=12:00"), "cluster.time=12:00 is no time. Type h:m:s"),
    ((*ONE, "cluster.time=tomorrow"), "cluster.time=tomorrow is no time"),
    ((*ONE, "cluster.time=0:02:00"), "cluster.notice_s=180 is not less than cluster.time=0:02:00"),
    ((*ONE, "cluster.mem=lots"), "cluster.mem=lots is no size of memory. Type cluster.mem=64G"),
    ((*ONE, "cluster.nodes=0"), "cluster.nodes=0 is out of range"),
    (
        (*ONE, "cluster.partition=nothing"),
        "sbatch refused the job:\nsbatch: error: invalid partition specified: nothing",
    ),
    ((*ONE, "cluster.nodes=9"), "cluster.nodes=9 is more than the cluster has: 4. Type cluster.nodes=4"),
    ((*ONE, "cluster.nodes=65"), "train.global_batch=64 gives 65 ranks less than one sample each"),
    (
        (*ONE, "cluster.container='nvcr.io#nvidia/pytorch:26.05-py3'", "cluster.mounts=[data]"),
        "cluster.mounts has 'data'",
    ),
    ((*ONE, "--array=0-x"), "--array=0-x is no list of indices"),
    ((*ONE, "--array=0-3"), "two of them would be the same run"),
    ((*ONE, "--after=999999"), "--after=999999: Slurm knows no such job"),
    ((*ONE, "train.step=5"), "Did you mean train.steps?"),
]


@pytest.mark.parametrize(
    ("words", "says"), BAD, ids=lambda part: " ".join(part)[:60] if isinstance(part, tuple) else ""
)
def test_bad_input_is_one_message_and_nothing_is_submitted(desk: Desk, words: tuple[str, ...], says: str) -> None:
    done = desk.type(*words)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert desk.cluster.ask("squeue", "--noheader") == ""
    assert not list(desk.folder.glob("runs/.submitted/*/"))


def test_machine_without_slurm_says_so(desk: Desk) -> None:
    done = desk.type(*ONE, environ={"PATH": "/nowhere:/usr/sbin"})
    assert done.returncode == 2
    assert "There is no sbatch on PATH" in done.stderr


def test_tasks_of_srun_are_no_worlds_of_one(desk: Desk) -> None:
    """Which would train the same run beside one another, or one of them while the others leave."""
    entry, here = (sys.executable, str(ROOT / "train" / "main.py")), f"run.root={quoted(str(desk.runs))}"
    tiny = ("model=mlp", "model.hidden=[8]", "train.steps=2", *SMALL, here)
    several = desk.cluster.run("srun", "--ntasks=2", *entry, *tiny, cwd=desk.folder)
    assert several.returncode == 2
    assert several.stderr.count("error: srun started this command 2 times (SLURM_STEP_NUM_TASKS=2)") == 1
    assert not desk.runs.exists()
    script = f"#!/bin/sh\n{shlex.join([*entry, *tiny])}\n"
    (desk.folder / "script").write_text(script)
    alone = desk.cluster.run("sbatch", "--wait", "--ntasks=2", "script", cwd=desk.folder)
    assert alone.returncode == 0, "a batch script is one process, whatever the job asks for"
