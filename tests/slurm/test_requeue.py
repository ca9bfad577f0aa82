"""Whatever ends a job before its run has ended, the job comes back and the run ends with the same weights."""

import json

import pytest

from tests.paced_task import TASK, Pace
from tests.ranks import Starter
from tests.slurm.queued_runs import TWO, crowd_out, told
from tests.slurm.slurm_lab import Desk, LabJob

pytestmark = pytest.mark.xdist_group("slurm, disturbed")

PACED = (TASK, "model=mlp", "model.hidden=[8]", "train.steps=20", "checkpoint.every=4", "log.every=1")
LONG = ("train.steps=80",)  # so many that no start comes to the end before it hears that it has to leave
GPUS = ("cluster.gpus_per_node=2", "world.device=cpu")  # the cluster has some to give, and torch sees none


def undisturbed(starter: Starter, *words: str) -> str:
    """The hash of the weights when nothing happens."""
    return starter.train(2, *words, name="calm", environ=Pace(after=0, gate="/").environ()).sha256


@pytest.fixture
def pace(desk: Desk) -> Pace:
    return Pace(after=9, gate=str(desk.folder / "gate"))


def requeue(job: LabJob) -> None:
    job.cluster.ask("scontrol", "requeue", job.job)


def warn(job: LabJob) -> None:
    """As Slurm does ahead of the time limit."""
    job.cluster.ask("scancel", "--signal=USR2", job.job)


def preempt(job: LabJob) -> None:
    crowd_out(job, job.job, "--nodes=4")


def test_disturbed_job_comes_back_and_ends_with_the_same_weights(desk: Desk, pace: Pace, starter: Starter) -> None:
    calm = undisturbed(starter, *PACED, *LONG)
    job = desk.submit(*PACED, *LONG, *TWO, *GPUS, environ=pace.environ())
    at = 0
    for times, disturb in enumerate((requeue, warn, preempt), 1):
        job.until_step(at + 9)
        disturb(job)
        pace.open()
        at = int(job.until_event("preempt", times)["step"])
        if times < 3:
            pace.close()  # well before the next start, which has to import first, may come by
    assert job.finish().sha256 == calm, job.log
    assert job.cluster.facts(job.job)["Restarts"] == "3"
    assert [event["step"] for event in job.results.events("preempt")] == [
        event["step"] for event in job.results.events("resume")
    ]


def test_job_that_loses_a_node_goes_on_without_it(desk: Desk, pace: Pace, starter: Starter) -> None:
    """The first node, which also runs the batch script, and another."""
    calm = undisturbed(starter, *PACED, *LONG)
    job = desk.submit(*PACED, *LONG, *TWO, environ=pace.environ())
    at, lost = 0, []
    for times, which in enumerate((-1, 0), 1):
        job.until_step(at + 9)
        lost.append(job.nodes()[which])
        job.cluster.command("kill-node", lost[-1].removeprefix("n"))
        if times == 2:
            pace.open()
        at = int(job.until_event("resume", times)["step"])
    assert job.finish().sha256 == calm, job.log
    assert not set(lost) & set(job.nodes())


def test_job_whose_node_was_cut_off_lives_twice_and_the_run_once(desk: Desk, pace: Pace, starter: Starter) -> None:
    """Slurm starts it again elsewhere, while the ranks of the first start go on and see the same folder."""
    job = desk.submit(*PACED, "cluster.ranks_per_node=2", environ=pace.environ())
    job.until_step(9)
    (node,) = job.nodes()
    job.cluster.command("cut-node", node.removeprefix("n"))
    starts = job.results.folder / "lease"
    job.cluster.until((starts / "00000002.json").exists)
    first = json.loads((starts / "00000001.json").read_text())
    assert job.cluster.node(int(node.removeprefix("n")), "test", "-d", f"/proc/{first['pid']}").returncode == 0
    pace.open()
    results = job.finish()
    assert results.sha256 == undisturbed(starter, *PACED), job.log
    assert [line["step"] for line in results.metrics("train")] == list(range(1, 21))
    assert "has taken over" in job.log, "the first start says why it leaves"
    second = json.loads((starts / "00000002.json").read_text())
    assert (first["host"], second["job"]) == (node, first["job"])
    assert second["host"] != node


def test_job_that_a_person_cancels_stays_away(desk: Desk, pace: Pace) -> None:
    job = desk.submit(*PACED, *TWO, environ=pace.environ())
    job.until_step(9)
    pace.open()
    job.cluster.ask("scancel", job.job)
    job.until_state("CANCELLED")
    assert job.cluster.facts(job.job)["Restarts"] == "0"
    assert "the job was cancelled" in job.log
    assert job.results.events()[-1]["event"] == "preempt", "the ranks heard a SIGTERM, as of a preemption"
    (found,) = told(desk).values()
    assert (found["state"], found["why"]) == ("stopped", "its job was cancelled")


def test_only_the_preempted_element_of_an_array_comes_back(desk: Desk, pace: Pace) -> None:
    seed = "seed=%a"
    words = (*PACED, seed, "cluster.ranks_per_node=1", *GPUS, "--array=0-1")
    job = desk.submit(*words, environ=pace.environ())
    for index in range(2):
        job.until_step(9, job.element(index))
    node = job.cluster.facts(f"{job.job}_1")["NodeList"]
    crowd_out(job, f"{job.job}_1", f"--nodelist={node}")
    pace.open()
    for index in range(2):
        job.until_state("COMPLETED", f"{job.job}_{index}")
    restarts = [job.cluster.facts(f"{job.job}_{index}")["Restarts"] for index in range(2)]
    assert restarts == ["0", "1"]
    assert len({job.element(index).sha256 for index in range(2)}) == 2


@pytest.mark.slow
def test_job_that_runs_out_of_time_comes_back(desk: Desk, pace: Pace, starter: Starter) -> None:
    """A real limit: Slurm looks at its clock twice a minute."""
    words = (TASK, "model=mlp", "model.hidden=[8]", "train.steps=1500", "log.every=1")
    here = starter.train(2, *words, name="here", environ=Pace(after=1500, gate="/nowhere").environ())
    job = desk.submit(*words, *TWO, "cluster.time=0:01:00", "cluster.notice_s=30", environ=pace.environ())
    job.until_step(9)
    pace.open()
    assert job.finish(timeout_s=240).sha256 == here.sha256, job.log
    assert job.results.events("preempt")
    assert job.results.events("resume")
