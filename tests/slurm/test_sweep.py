"""The elements of an array share the trials of a sweep, and what one has to leave is not lost."""

import json
import re
from pathlib import Path

import pytest

from tests.launch.sweep.sweeper import SHORT
from tests.paced_task import TASK, Pace
from tests.phalanx.config.cases import mnist
from tests.ranks import Results, Starter
from tests.slurm.queued_runs import crowd_out, held, told
from tests.slurm.slurm_lab import Desk, LabJob

pytestmark = pytest.mark.xdist_group("slurm, disturbed")

SPACE = ("optim.lr=1e-3,1e-2", "model.hidden=[8],[16]")
# Room for one trial at a time in each job, which has a machine of its own.
ONE = ("sweep.slots=1", "cluster.ranks_per_node=2", "cluster.gpus_per_node=2", "world.device=cpu", "run.name=s")
PACED = (*SHORT, SPACE[0], *ONE, "--sweep", "train.steps=30", TASK)


def trial(desk: Desk, number: int) -> Results:
    return Results(desk.runs / "s" / f"{number:04d}")


def rows(desk: Desk) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((desk.runs / "s" / "sweep.json").read_text())["rows"]
    return found


def starts(desk: Desk) -> list[list[str]]:
    """How often each trial was begun or gone on with."""
    events = [trial(desk, number).events() for number in range(len(rows(desk)))]
    return [[e["event"] for e in of_run if e["event"] in ("start", "resume")] for of_run in events]


def finish(job: LabJob, *elements: int) -> None:
    for element in elements:
        job.until_state("COMPLETED", f"{job.job}_{element}", timeout_s=180.0)


def test_elements_share_the_trials_and_each_has_the_weights_of_one_that_was_started_alone(
    desk: Desk, starter: Starter
) -> None:
    """Though each element has the data elsewhere."""
    for element in ("0", "1"):
        (desk.folder / element).mkdir()
        mnist()(desk.folder / element)
    data = (*SHORT, "data=mnist", "data.train.download=false", "train.global_batch=16")
    where = f"data.train.root={desk.folder}/${{oc.env:SLURM_ARRAY_TASK_ID}}/mnist"
    job = desk.submit(*data, where, *SPACE, *ONE, "--sweep", "--array=0-1", "sweep.ranks=2")
    finish(job, 0, 1)
    assert [row["state"] for row in rows(desk)] == ["complete"] * 4
    assert starts(desk) == [["start"]] * 4
    here = f"data.train.root={desk.folder}/0/mnist"
    alone = starter.train(2, *data, here, "optim.lr=0.01", "model.hidden=[8]", name="alone")
    assert trial(desk, 2).sha256 == alone.sha256
    command = job.log.splitlines()
    assert any(re.match(r"phalanx run -n 2 (?!.*(grace_s|config-dir)).*optim.lr=", line) for line in command), job.log
    assert desk.phalanx("status", f"--root={desk.runs}", "s").stdout.splitlines()[1].split()[:3] == [
        "s",
        "finished",
        "4/4",
    ]


def preempt(job: LabJob, node: str) -> None:
    crowd_out(job, f"{job.job}_1", f"--nodelist={node}")


def lose(job: LabJob, node: str) -> None:
    job.cluster.command("kill-node", node.removeprefix("n"))


@pytest.mark.parametrize("disturb", [preempt, lose])
def test_trial_that_an_element_has_to_leave_is_gone_on_with(desk: Desk, disturb: object) -> None:
    pace = Pace(after=6, gate=str(desk.folder / "gate"))
    job = desk.submit(*PACED, "--array=0-1", environ=pace.environ())
    for number in (0, 1):
        job.until_step(4, trial(desk, number))
    assert told(desk)["s"]["state"] == "running"
    assert callable(disturb)
    disturb(job, job.cluster.facts(f"{job.job}_1")["NodeList"])
    pace.open()
    finish(job, 0, 1)
    assert [row["state"] for row in rows(desk)] == ["complete"] * 2
    assert sorted(starts(desk)) == [["start"], ["start", "resume"]]
    assert json.loads((desk.runs / "s" / "sweep.json").read_text())["state"] == "finished"


def test_sweep_waits_in_the_queue_under_its_name_and_is_cancelled_by_it(desk: Desk) -> None:
    with held(desk) as before:
        job = desk.submit(*PACED, "--array=0-1", f"--after={before}")
        assert told(desk)["s"]["state"] == "queued"
        desk.cluster.until(lambda: told(desk)["s"]["why"] == "Dependency")
        again = desk.type(f"run.root={desk.runs}", *PACED)
        assert "already (pending), so it is not submitted twice" in again.stderr
        done = desk.phalanx("cancel", f"--root={desk.runs}", "s")
        assert done.stdout.count("asked Slurm to end job") == 2, done.stderr
        job.cluster.until(lambda: job.cluster.ask("squeue", "--noheader", f"--name={Path(job.folder).name}") == "")
    assert not (desk.runs / "s").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("cluster.nodes=2",), "Type cluster.nodes=1 --array=0-1 for 2 jobs"),
        (("sweep.ranks=3",), "Type sweep.ranks=2"),
        (("optim.rate=1",), "optim.rate is not a key"),
        (("--doctor",), "--doctor trains nothing"),
    ],
)
def test_sweep_that_no_job_could_work_on_is_not_submitted(desk: Desk, words: tuple[str, ...], says: str) -> None:
    done = desk.type(f"run.root={desk.runs}", *PACED, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr
    assert not desk.runs.exists()
