"""Whatever ends a job before its run has ended, the job comes back and the run ends with the same weights."""

import json
from collections.abc import Callable

import pytest

from tests.pacer import TASK, Pace
from tests.ranks import Nursery, Starter
from tests.slurm.lab import Desk, Submitted

PACED = (TASK, "model=mlp", "model.hidden=[8]", "train.steps=20", "checkpoint.every=4", "log.every=1")
TWO = ("cluster.nodes=2", "cluster.ranks_per_node=1")
GPUS = ("cluster.gpus_per_node=2", "world.device=cpu")  # the cluster has some to give, and torch sees none


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the weights when nothing happens."""
    starter = Starter(nursery, tmp_path_factory.mktemp("undisturbed"))
    return starter.train(2, *PACED, name="calm", environ=Pace(after=20, gate="/nowhere").environ()).sha256


@pytest.fixture
def pace(desk: Desk) -> Pace:
    return Pace(after=9, gate=str(desk.folder / "gate"))


def requeue(job: Submitted) -> None:
    job.cluster.ask("scontrol", "requeue", job.job)


def warn(job: Submitted) -> None:
    """As Slurm does ahead of the time limit."""
    job.cluster.ask("scancel", "--signal=USR2", job.job)


def preempt(job: Submitted) -> None:
    crowd_out(job, job.job, "--nodes=4")


def crowd_out(job: Submitted, element: str, where: str) -> None:
    """A more urgent job takes the GPUs; returns when Slurm has told `element` to go."""
    job.cluster.ask("sbatch", "--partition=urgent", where, "--gpus-per-node=2", "--wrap=true")
    job.cluster.until(lambda: job.cluster.facts(element)["PreemptTime"] != "None")


@pytest.mark.parametrize("disturb", [requeue, warn, preempt])
def test_disturbed_job_comes_back_and_ends_with_the_same_weights(
    desk: Desk, pace: Pace, undisturbed: str, disturb: Callable[[Submitted], None]
) -> None:
    job = desk.submit(*PACED, *TWO, *GPUS, environ=pace.environ())
    job.until_step(9)
    disturb(job)
    pace.open()
    assert job.finish().sha256 == undisturbed, job.log
    assert job.cluster.facts(job.job)["Restarts"] == "1"
    assert [event["step"] for event in job.results.events("preempt")] == [
        event["step"] for event in job.results.events("resume")
    ]


@pytest.mark.parametrize("lost", ["first", "last"])
def test_job_that_loses_a_node_goes_on_without_it(desk: Desk, pace: Pace, undisturbed: str, lost: str) -> None:
    """The first node also runs the batch script."""
    job = desk.submit(*PACED, *TWO, environ=pace.environ())
    job.until_step(9)
    node = job.nodes()[0 if lost == "first" else -1]
    job.cluster.command("kill-node", node.removeprefix("n"))
    pace.open()
    assert job.finish().sha256 == undisturbed, job.log
    assert node not in job.nodes()


def test_job_whose_node_was_cut_off_lives_twice_and_the_run_once(desk: Desk, pace: Pace, undisturbed: str) -> None:
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
    assert results.sha256 == undisturbed, job.log
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


def test_only_the_preempted_element_of_an_array_comes_back(desk: Desk, pace: Pace) -> None:
    seed = "seed=%a"
    words = (*PACED, seed, "cluster.ranks_per_node=1", *GPUS, "--array=0-3")
    job = desk.submit(*words, environ=pace.environ())
    for index in range(4):
        job.until_step(9, job.element(index))
    node = job.cluster.facts(f"{job.job}_2")["NodeList"]
    crowd_out(job, f"{job.job}_2", f"--nodelist={node}")
    pace.open()
    for index in range(4):
        job.until_state("COMPLETED", f"{job.job}_{index}")
    restarts = [job.cluster.facts(f"{job.job}_{index}")["Restarts"] for index in range(4)]
    assert restarts == ["0", "0", "1", "0"]
    assert len({job.element(index).sha256 for index in range(4)}) == 4


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
